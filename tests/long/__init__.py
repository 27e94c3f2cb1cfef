"""Runs that take minutes to hours, each a target of the Makefile; none of them is collected by pytest.

``benchmarks``
    Times compared with other libraries (``make bench``), the cost of training and of a cohort, a study's disk space.
    They write docs/benchmarks.md and docs/end-to-end.md.
``reliability``
    The daemon under kills, disk errors, load and damaged input (``make torture``, ``faults``, ``soak``, ``fuzz``,
    ``hostile``). Each ends with 0 only if nothing was lost, answered twice or damaged. Figures go into
    docs/reliability.md.
``conformance``
    Writes the tables of docs/conformance.md out of documents that the code makes (``make conformance``), and
    docs/ibsi.md out of what it measures on IBSI's phantoms (``make ibsi``).

The test suite runs short versions of some of them in :mod:`tests.system`: ``test_benchmark_page``,
``test_conformance``, ``test_fuzz`` and ``test_hostile``.
"""
