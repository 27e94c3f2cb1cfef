/* The loops over voxels: texture matrices, mesh counts and diameters, linear and B-spline resampling.
 *
 * Every function takes C-contiguous buffers that the caller has allocated. It checks their types and sizes before it
 * reads a voxel, and it works without the interpreter's lock. The features are computed from these counts in formulas.py.
 * Definitions follow PyRadiomics 3.0.1; the code was written for this project.
 *
 * A "grey-level volume" is uint16 (z, y, x): 0 outside the region, otherwise 1 + the rank of the voxel's grey level among
 * the present levels. It is padded with zeros, so a neighbour can be read without a check of the border. Only voxels
 * further from the border than the longest offset are visited, so no read is outside the buffer.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* stable interface of Python 3.11: the same extension works with all later versions */
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OFFSETS 5000 /* a little more than half of the neighbours up to a distance of 10 */

/* --- buffers ------------------------------------------------------------------------------------------------- */

/* Take a C-contiguous buffer of the given struct format, e.g. "i"; returns -1 and sets an exception for any other. */
static int take(PyObject *object, Py_buffer *view, const char *format, int ndim, int writable, const char *name)
{
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0)
        return -1;
    const char *given = view->format ? view->format : "B";
    if (strcmp(given, format) != 0 || view->ndim != ndim) {
        PyErr_Format(PyExc_TypeError, "%s must be %d-dimensional of format '%s'", name, ndim, format);
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

/* A buffer that a function needs. */
typedef struct {
    const char *format;
    int ndim, writable;
    const char *name;
} Wanted;

static void release_all(Py_buffer *views, int count)
{
    for (int k = 0; k < count; k++)
        PyBuffer_Release(&views[k]);
}

/* Take a function's arguments as buffers. If one does not fit, release all, set an exception and return -1. */
static int take_all(PyObject *args, const Wanted *wanted, int count, Py_buffer *views)
{
    if (PyTuple_Size(args) != count) {
        PyErr_Format(PyExc_TypeError, "%d buffers must be given, not %zd", count, PyTuple_Size(args));
        return -1;
    }
    for (int k = 0; k < count; k++) {
        const Wanted *w = &wanted[k];
        if (take(PyTuple_GetItem(args, k), &views[k], w->format, w->ndim, w->writable, w->name) < 0) {
            release_all(views, k);
            return -1;
        }
    }
    return 0;
}

static Py_ssize_t count_of(const Py_buffer *view)
{
    return view->itemsize ? view->len / view->itemsize : 0;
}

/* Offsets to neighbours, as steps through a volume's buffer. */
typedef struct {
    Py_ssize_t count;
    Py_ssize_t step[MAX_OFFSETS];
    Py_ssize_t along[MAX_OFFSETS][3];
    Py_ssize_t reach[3]; /* longest offset along each axis */
} Offsets;

typedef struct {
    Py_buffer view;
    const uint16_t *voxel;
    Py_ssize_t size[3];
} Levels;

static int take_levels(PyObject *object, Levels *levels, long highest)
{
    if (take(object, &levels->view, "H", 3, 0, "levels") < 0)
        return -1;
    levels->voxel = levels->view.buf;
    for (int axis = 0; axis < 3; axis++)
        levels->size[axis] = levels->view.shape[axis];
    Py_ssize_t total = count_of(&levels->view);
    uint16_t seen = 0;
    for (Py_ssize_t i = 0; i < total; i++)
        seen = levels->voxel[i] > seen ? levels->voxel[i] : seen;
    if (highest < 1 || (long)seen > highest || total > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "levels must lie between 0 and the number of grey levels");
        PyBuffer_Release(&levels->view);
        return -1;
    }
    return 0;
}

static int take_offsets(PyObject *object, Offsets *offsets, const Levels *levels)
{
    Py_buffer view;
    if (take(object, &view, "l", 2, 0, "offsets") < 0)
        return -1;
    int fits = view.shape[1] == 3 && view.shape[0] <= MAX_OFFSETS;
    memset(offsets->reach, 0, sizeof offsets->reach);
    offsets->count = fits ? view.shape[0] : 0;
    for (Py_ssize_t k = 0; k < offsets->count && fits; k++) {
        const long *offset = (const long *)view.buf + 3 * k;
        for (int axis = 0; axis < 3; axis++) {
            const Py_ssize_t most = (levels->size[axis] - 1) / 2; /* padding on both sides, and at least one voxel */
            fits &= -most <= offset[axis] && offset[axis] <= most;
            const Py_ssize_t length = fits ? labs(offset[axis]) : 0;
            offsets->along[k][axis] = offset[axis];
            if (length > offsets->reach[axis])
                offsets->reach[axis] = length;
        }
        offsets->step[k] = fits ? (offset[0] * levels->size[1] + offset[1]) * levels->size[2] + offset[2] : 0;
    }
    PyBuffer_Release(&view);
    if (!fits) {
        PyErr_Format(PyExc_ValueError, "offsets must be at most %d triples that fit the padded volume", MAX_OFFSETS);
        return -1;
    }
    return 0;
}

/* Visit every voxel to which all offsets can be applied; `i` is its index in the buffer. */
#define FOR_EACH_VOXEL(levels, offsets)                                                                       \
    for (Py_ssize_t z = (offsets).reach[0]; z < (levels).size[0] - (offsets).reach[0]; z++)                   \
        for (Py_ssize_t y = (offsets).reach[1]; y < (levels).size[1] - (offsets).reach[1]; y++)               \
            for (Py_ssize_t row = (z * (levels).size[1] + y) * (levels).size[2],                              \
                            i = row + (offsets).reach[2], end = row + (levels).size[2] - (offsets).reach[2];  \
                 i < end; i++)

/* --- grey levels --------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(bounds_doc, "bounds(mask, box): first and last index of the mask along each axis, and its voxels.");

static PyObject *bounds(PyObject *self, PyObject *args)
{
    static const Wanted wanted[] = {{"?", 3, 0, "mask"}, {"l", 2, 1, "box"}};
    Py_buffer views[2], *mask = &views[0], *box = &views[1];
    if (take_all(args, wanted, 2, views) < 0)
        return NULL;
    Py_ssize_t inside = 0;
    if (count_of(box) != 6) {
        PyErr_SetString(PyExc_ValueError, "box must be (3, 2)");
    } else {
        long *edge = box->buf;
        const unsigned char *voxel = mask->buf;
        Py_BEGIN_ALLOW_THREADS
        for (int axis = 0; axis < 3; axis++) {
            edge[2 * axis] = mask->shape[axis];
            edge[2 * axis + 1] = -1;
        }
        for (Py_ssize_t z = 0; z < mask->shape[0]; z++)
            for (Py_ssize_t y = 0; y < mask->shape[1]; y++) {
                const unsigned char *row = voxel + (z * mask->shape[1] + y) * mask->shape[2];
                const unsigned char *first = mask->shape[2] ? memchr(row, 1, (size_t)mask->shape[2]) : NULL;
                if (!first)
                    continue;
                Py_ssize_t x = first - row, last = x, found = 0;
                if (x < edge[4])
                    edge[4] = x;
                for (; x < mask->shape[2]; x++)
                    if (row[x]) {
                        found++;
                        last = x;
                    }
                inside += found;
                if (last > edge[5])
                    edge[5] = last;
                if (y < edge[2])
                    edge[2] = y;
                if (y > edge[3])
                    edge[3] = y;
                if (z < edge[0])
                    edge[0] = z;
                edge[1] = z;
            }
        Py_END_ALLOW_THREADS
    }
    release_all(views, 2);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(inside);
}

PyDoc_STRVAR(histogram_doc,
             "histogram(image, mask) -> tuple: the lowest int16 value inside, and int64 counts as bytes: of that value, of the next, and so on to the highest.");

static PyObject *histogram(PyObject *self, PyObject *args)
{
    static const Wanted wanted[] = {{"h", 3, 0, "image"}, {"?", 3, 0, "mask"}};
    Py_buffer views[2], *image = &views[0], *mask = &views[1];
    int lowest = INT16_MAX, highest = INT16_MIN;
    PyObject *counts = NULL;
    if (take_all(args, wanted, 2, views) < 0)
        return NULL;
    const int16_t *value = image->buf;
    const unsigned char *inside = mask->buf;
    if (count_of(image) != mask->len) {
        PyErr_SetString(PyExc_ValueError, "image and mask must be alike");
    } else {
        Py_BEGIN_ALLOW_THREADS
        int16_t low = INT16_MAX, high = INT16_MIN;
        for (Py_ssize_t i = 0; i < mask->len; i++) {
            const int16_t least = inside[i] ? value[i] : INT16_MAX, most = inside[i] ? value[i] : INT16_MIN;
            low = least < low ? least : low;
            high = most > high ? most : high;
        }
        lowest = low, highest = high;
        Py_END_ALLOW_THREADS
        const Py_ssize_t values = highest < lowest ? 0 : highest - lowest + 1;
        counts = PyBytes_FromStringAndSize(NULL, values * (Py_ssize_t)sizeof(int64_t));
        if (counts) {
            int64_t *count = (int64_t *)PyBytes_AsString(counts);
            Py_BEGIN_ALLOW_THREADS
            memset(count, 0, (size_t)values * sizeof *count);
            for (Py_ssize_t i = 0; i < mask->len; i++)
                if (inside[i])
                    count[value[i] - lowest]++;
            Py_END_ALLOW_THREADS
        }
    }
    release_all(views, 2);
    return counts ? Py_BuildValue("iN", lowest, counts) : NULL;
}

PyDoc_STRVAR(levels_doc, "levels(image, mask, lowest, table, padded): table[value - lowest] for each int16 voxel inside, centred in a padded volume; 0 beyond the table.");

static PyObject *levels(PyObject *self, PyObject *args)
{
    PyObject *objects[4];
    int lowest;
    static const Wanted wanted[] = {{"h", 3, 0, "image"}, {"?", 3, 0, "mask"}, {"H", 1, 0, "table"}, {"H", 3, 1, "padded"}};
    Py_buffer views[4], *image = &views[0], *mask = &views[1], *table = &views[2], *out = &views[3];
    if (!PyArg_ParseTuple(args, "OOiOO", &objects[0], &objects[1], &lowest, &objects[2], &objects[3]))
        return NULL;
    for (int k = 0; k < 4; k++)
        if (take(objects[k], &views[k], wanted[k].format, wanted[k].ndim, wanted[k].writable, wanted[k].name) < 0) {
            release_all(views, k);
            return NULL;
        }
    int fits = lowest >= INT16_MIN && lowest <= INT16_MAX;
    Py_ssize_t pad[3];
    for (int axis = 0; axis < 3; axis++) {
        fits &= image->shape[axis] == mask->shape[axis] && out->shape[axis] >= mask->shape[axis];
        pad[axis] = (out->shape[axis] - mask->shape[axis]) / 2;
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "image, mask and padded volume do not fit each other");
    } else {
        const uint16_t *level = table->buf;
        const Py_ssize_t values = count_of(table);
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t z = 0; z < mask->shape[0]; z++)
            for (Py_ssize_t y = 0; y < mask->shape[1]; y++) {
                Py_ssize_t from = (z * mask->shape[1] + y) * mask->shape[2];
                const int16_t *value = (const int16_t *)image->buf + from;
                const unsigned char *inside = (const unsigned char *)mask->buf + from;
                uint16_t *to = (uint16_t *)out->buf + ((z + pad[0]) * out->shape[1] + y + pad[1]) * out->shape[2] + pad[2];
                for (Py_ssize_t x = 0; x < mask->shape[2]; x++) {
                    const Py_ssize_t place = value[x] - lowest;
                    to[x] = inside[x] && place >= 0 && place < values ? level[place] : 0;
                }
            }
        Py_END_ALLOW_THREADS
    }
    release_all(views, 4);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* --- texture matrices ---------------------------------------------------------------------------------------- */

/* Common arguments of the matrix functions: levels, offsets, number of grey levels, and the output. */
typedef struct {
    Levels levels;
    Offsets offsets;
    long grey;
    Py_buffer out;
} Texture;

static int open_texture(Texture *t, PyObject *levels, PyObject *offsets, long grey, PyObject *out, const char *format, int ndim)
{
    t->grey = grey;
    if (take_levels(levels, &t->levels, grey) < 0)
        return -1;
    if (take_offsets(offsets, &t->offsets, &t->levels) < 0 || take(out, &t->out, format, ndim, 1, "out") < 0) {
        PyBuffer_Release(&t->levels.view);
        return -1;
    }
    return 0;
}

static PyObject *close_texture(Texture *t)
{
    PyBuffer_Release(&t->levels.view);
    PyBuffer_Release(&t->out);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(glcm_doc, "glcm(levels, offsets, grey, out): out[i, j, k] += pairs of levels i and j that lie offset k apart.");

static PyObject *glcm(PyObject *self, PyObject *args)
{
    PyObject *objects[3];
    long grey;
    Texture t;
    if (!PyArg_ParseTuple(args, "OOlO", &objects[0], &objects[1], &grey, &objects[2]))
        return NULL;
    if (open_texture(&t, objects[0], objects[1], grey, objects[2], "i", 3) < 0)
        return NULL;
    if (t.out.shape[0] != grey || t.out.shape[1] != grey || t.out.shape[2] != t.offsets.count) {
        PyErr_SetString(PyExc_ValueError, "out must be (grey, grey, offsets)");
    } else {
        const uint16_t *voxel = t.levels.voxel;
        const Py_ssize_t angles = t.offsets.count, wide = grey * angles;
        int32_t *out = t.out.buf;
        Py_BEGIN_ALLOW_THREADS
        FOR_EACH_VOXEL(t.levels, t.offsets) {
            if (!voxel[i])
                continue;
            int32_t *line = out + (voxel[i] - 1) * wide;
            for (Py_ssize_t k = 0; k < angles; k++) {
                uint16_t other = voxel[i + t.offsets.step[k]];
                if (other)
                    line[(other - 1) * angles + k]++;
            }
        }
        Py_END_ALLOW_THREADS
    }
    return close_texture(&t);
}

/* The equal neighbours of each voxel. Runs and zones are counted from them. */
typedef struct {
    Py_buffer view;
    const uint16_t *bits;
} Alike;

/* Take the output of alike() for these levels and offsets. The check only makes sure that no bit leads out of the buffer. */
static int take_alike(PyObject *object, Alike *alike, const Levels *levels, const Offsets *offsets)
{
    if (take(object, &alike->view, "H", 3, 0, "alike") < 0)
        return -1;
    alike->bits = alike->view.buf;
    int fits = offsets->count <= 16;
    for (int axis = 0; axis < 3; axis++)
        fits &= alike->view.shape[axis] == levels->size[axis];
    uint16_t beyond = 0;
    if (fits) /* a bit near the border, or a bit without an offset, would lead out of the buffer */
        for (Py_ssize_t z = 0; z < levels->size[0]; z++)
            for (Py_ssize_t y = 0; y < levels->size[1]; y++) {
                const Py_ssize_t wide = levels->size[2], margin = offsets->reach[2];
                const uint16_t *row = alike->bits + (z * levels->size[1] + y) * wide;
                int rim = z < offsets->reach[0] || z >= levels->size[0] - offsets->reach[0] || y < offsets->reach[1] ||
                          y >= levels->size[1] - offsets->reach[1];
                uint16_t any = 0;
                for (Py_ssize_t x = 0; x < wide; x++)
                    any |= row[x];
                beyond |= rim ? any : (uint16_t)(any & ~((1u << offsets->count) - 1));
                for (Py_ssize_t x = 0; x < margin; x++)
                    beyond |= row[x] | row[wide - 1 - x];
            }
    if (!fits || beyond) {
        PyErr_SetString(PyExc_ValueError, "alike was not made from these levels and offsets");
        PyBuffer_Release(&alike->view);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(alike_doc,
             "alike(levels, offsets, grey, out): set bit k of out[voxel] where the voxel at minus offset k has the same level, inside.");

static PyObject *alike(PyObject *self, PyObject *args)
{
    PyObject *objects[3];
    long grey;
    Texture t;
    if (!PyArg_ParseTuple(args, "OOlO", &objects[0], &objects[1], &grey, &objects[2]))
        return NULL;
    if (open_texture(&t, objects[0], objects[1], grey, objects[2], "H", 3) < 0)
        return NULL;
    int fits = t.offsets.count <= 16;
    for (int axis = 0; axis < 3; axis++)
        fits &= t.out.shape[axis] == t.levels.size[axis];
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "out must have the shape of the levels, and there be at most 16 offsets");
    } else {
        const Py_ssize_t *size = t.levels.size, *reach = t.offsets.reach, wide = size[2] - 2 * reach[2];
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t z = reach[0]; z < size[0] - reach[0]; z++)
            for (Py_ssize_t y = reach[1]; y < size[1] - reach[1]; y++) {
                Py_ssize_t from = (z * size[1] + y) * size[2] + reach[2];
                const uint16_t *restrict here = t.levels.voxel + from;
                uint16_t *restrict bits = (uint16_t *)t.out.buf + from;
                for (Py_ssize_t x = 0; x < wide; x++)
                    bits[x] = 0;
                for (Py_ssize_t k = 0; k < t.offsets.count; k++) {
                    const uint16_t *there = here - t.offsets.step[k];
                    uint16_t bit = (uint16_t)(1u << k);
                    for (Py_ssize_t x = 0; x < wide; x++)
                        bits[x] |= here[x] == there[x] ? bit : 0;
                }
                for (Py_ssize_t x = 0; x < wide; x++)
                    bits[x] = here[x] ? bits[x] : 0;
            }
        Py_END_ALLOW_THREADS
    }
    return close_texture(&t);
}

/* Whether two voxels of the region are on the same line along offset k, with or without a gap between them. */
static int shares_a_line(const Levels *levels, const Offsets *offsets, Py_ssize_t k)
{
    const uint16_t *voxel = levels->voxel;
    FOR_EACH_VOXEL(*levels, *offsets)
        if (voxel[i] && voxel[i + offsets->step[k]])
            return 1;
    FOR_EACH_VOXEL(*levels, *offsets) {
        if (!voxel[i])
            continue;
        Py_ssize_t at[3] = {z, y, i - row}, j = i;
        for (;;) {
            int left = 0;
            for (int axis = 0; axis < 3; axis++) {
                at[axis] += offsets->along[k][axis];
                left |= at[axis] < 0 || at[axis] >= levels->size[axis];
            }
            if (left)
                break;
            j += offsets->step[k];
            if (voxel[j])
                return 1;
        }
    }
    return 0;
}

/* Sixteen counters for each grey level, one for each bit. A voxel's bits are added to all counters in two additions of
 * eight short numbers; the compiler makes one instruction of each. The sums are moved to long numbers before a short
 * one can overflow. */
typedef struct {
    uint16_t spread[256][8]; /* bit k of the index in place k */
    long grey, added;
    uint16_t (*brief)[16];
    int32_t (*whole)[16];
} Tally;

static int open_tally(Tally *tally, long grey)
{
    for (int bits = 0; bits < 256; bits++)
        for (int k = 0; k < 8; k++)
            tally->spread[bits][k] = bits >> k & 1;
    tally->grey = grey;
    tally->added = 0;
    tally->brief = PyMem_Calloc((size_t)grey, sizeof *tally->brief);
    tally->whole = PyMem_Calloc((size_t)grey, sizeof *tally->whole);
    return tally->brief && tally->whole ? 0 : -1;
}

static void sum_up(Tally *tally)
{
    for (long level = 0; level < tally->grey; level++)
        for (int k = 0; k < 16; k++)
            tally->whole[level][k] += tally->brief[level][k];
    memset(tally->brief, 0, (size_t)tally->grey * sizeof *tally->brief);
    tally->added = 0;
}

static inline void add_bits(Tally *tally, long level, uint16_t bits)
{
    uint16_t *restrict brief = tally->brief[level];
    const uint16_t *low = tally->spread[bits & 255], *high = tally->spread[bits >> 8];
    for (int k = 0; k < 8; k++)
        brief[k] = (uint16_t)(brief[k] + low[k]);
    for (int k = 0; k < 8; k++)
        brief[8 + k] = (uint16_t)(brief[8 + k] + high[k]);
    if (++tally->added == UINT16_MAX)
        sum_up(tally);
}

static void close_tally(Tally *tally)
{
    PyMem_Free(tally->brief);
    PyMem_Free(tally->whole);
}

/* Count runs into out[level, length - 1, k]. Pairs of equal neighbours are counted together; only runs of three and more
 * voxels are followed one by one. */
static void count_runs(const Texture *t, const Alike *same, Tally *pairs, uint16_t *row)
{
    const uint16_t *voxel = t->levels.voxel;
    const Py_ssize_t *size = t->levels.size, *reach = t->offsets.reach, wide = size[2] - 2 * reach[2];
    const Py_ssize_t angles = t->offsets.count, most = t->out.shape[1];
    int32_t *out = t->out.buf;
    for (Py_ssize_t z = reach[0]; z < size[0] - reach[0]; z++)
        for (Py_ssize_t y = reach[1]; y < size[1] - reach[1]; y++) {
            Py_ssize_t from = (z * size[1] + y) * size[2] + reach[2];
            const uint16_t *bits = same->bits + from;
            /* Bit k of row[x] is set if the two voxels before x have the same level. */
            memset(row, 0, (size_t)wide * sizeof *row);
            for (Py_ssize_t k = 0; k < angles; k++) {
                const uint16_t *before = bits - t->offsets.step[k];
                uint16_t bit = (uint16_t)(1u << k);
                for (Py_ssize_t x = 0; x < wide; x++)
                    row[x] |= bits[x] & before[x] & bit;
            }
            for (Py_ssize_t x = 0; x < wide; x++) {
                Py_ssize_t i = from + x;
                if (!voxel[i])
                    continue;
                int32_t *line = out + (voxel[i] - 1) * most * angles;
                line[0]++; /* holds the number of the level's voxels until the end */
                add_bits(pairs, voxel[i] - 1, bits[x]);
                for (unsigned longer = row[x]; longer; longer &= longer - 1) {
                    int k = __builtin_ctz(longer);
                    const Py_ssize_t step = t->offsets.step[k];
                    if (same->bits[i + step] >> k & 1)
                        continue; /* the run continues; it is counted at its end */
                    Py_ssize_t length = 3, j = i - 2 * step;
                    while (length < most && same->bits[j] >> k & 1) {
                        length++;
                        j -= step;
                    }
                    line[(length - 1) * angles + k]++;
                }
            }
        }
    sum_up(pairs);
    /* A run of n voxels has n - 1 pairs. Pairs that are not in longer runs are runs of two; all other voxels are single. */
    for (long level = 0; level < t->grey; level++) {
        int32_t *line = out + level * most * angles, voxels = line[0];
        for (Py_ssize_t k = 0; k < angles; k++) {
            int32_t two = pairs->whole[level][k], one = voxels;
            for (Py_ssize_t length = 3; length <= most; length++) {
                int32_t runs = line[(length - 1) * angles + k];
                two -= runs * (int32_t)(length - 1);
                one -= runs * (int32_t)length;
            }
            line[angles + k] = two;
            line[k] = one - 2 * two;
        }
    }
    for (Py_ssize_t k = 0; k < angles; k++)
        if (!shares_a_line(&t->levels, &t->offsets, k))
            for (long level = 0; level < t->grey; level++)
                out[level * most * angles + k] = 0;
}

PyDoc_STRVAR(glrlm_doc,
             "glrlm(levels, offsets, grey, alike, out): out[i, n - 1, k] = runs of level i and length n along offset k; out must be zeros.\n\n"
             "An offset along which no two voxels of the region share a line has no runs.");

static PyObject *glrlm(PyObject *self, PyObject *args)
{
    PyObject *objects[4];
    long grey;
    Texture t;
    Alike same;
    if (!PyArg_ParseTuple(args, "OOlOO", &objects[0], &objects[1], &grey, &objects[2], &objects[3]))
        return NULL;
    if (open_texture(&t, objects[0], objects[1], grey, objects[3], "i", 3) < 0)
        return NULL;
    if (take_alike(objects[2], &same, &t.levels, &t.offsets) < 0)
        return close_texture(&t);
    Py_ssize_t longest = 2;
    for (int axis = 0; axis < 3; axis++)
        longest = t.levels.size[axis] > longest ? t.levels.size[axis] : longest;
    if (!t.offsets.count || t.out.shape[0] != grey || t.out.shape[1] < longest || t.out.shape[2] != t.offsets.count) {
        PyErr_SetString(PyExc_ValueError, "there must be offsets, and out be (grey, longest side and at least 2, offsets)");
    } else {
        Tally pairs;
        uint16_t *row = PyMem_Malloc((size_t)(t.levels.size[2] + 1) * sizeof *row);
        if (open_tally(&pairs, grey) < 0 || !row) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS
            count_runs(&t, &same, &pairs, row);
            Py_END_ALLOW_THREADS
        }
        close_tally(&pairs);
        PyMem_Free(row);
    }
    PyBuffer_Release(&same.view);
    return close_texture(&t);
}

/* The root of voxel i's zone: follows the parents and halves the path. */
static int32_t root_of(int32_t *parent, int32_t i)
{
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

/* For each offset k, find the offsets j whose neighbour touches that of k: bit j of beside[k] is set if both are one
 * offset apart. If both neighbours have the voxel's level, they are already in the same zone. */
static void find_beside(const Offsets *offsets, uint16_t beside[16])
{
    for (Py_ssize_t k = 0; k < offsets->count; k++) {
        beside[k] = 0;
        for (Py_ssize_t j = 0; j < offsets->count; j++)
            for (Py_ssize_t m = 0; m < offsets->count; m++)
                for (int sign = -1; sign <= 1; sign += 2) {
                    int one_apart = 1;
                    for (int axis = 0; axis < 3; axis++)
                        one_apart &= offsets->along[j][axis] - offsets->along[k][axis] == sign * offsets->along[m][axis];
                    beside[k] |= (uint16_t)(one_apart << j);
                }
    }
}

PyDoc_STRVAR(zones_doc,
             "zones(levels, offsets, grey, alike) -> bytes: int32 pairs (level - 1, voxels), one for each connected zone of one level.\n\n"
             "The offsets must each point forwards in memory; a zone is a class of the union of those neighbours.");

static PyObject *zones(PyObject *self, PyObject *args)
{
    PyObject *objects[3], *result = NULL;
    long grey;
    Levels levels;
    Offsets offsets;
    Alike same;
    if (!PyArg_ParseTuple(args, "OOlO", &objects[0], &objects[1], &grey, &objects[2]))
        return NULL;
    if (take_levels(objects[0], &levels, grey) < 0)
        return NULL;
    if (take_offsets(objects[1], &offsets, &levels) < 0 || take_alike(objects[2], &same, &levels, &offsets) < 0) {
        PyBuffer_Release(&levels.view);
        return NULL;
    }
    for (Py_ssize_t k = 0; k < offsets.count; k++)
        if (offsets.step[k] <= 0)
            PyErr_SetString(PyExc_ValueError, "offsets must point forwards");
    Py_ssize_t total = count_of(&levels.view), found = 0;
    int32_t *parent = PyErr_Occurred() ? NULL : PyMem_Calloc((size_t)total + 1, sizeof *parent);
    if (!parent) {
        PyBuffer_Release(&levels.view);
        PyBuffer_Release(&same.view);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    /* Filled with zeros: a wrong bit that leads out of the region then leads to voxel 0, which is its own root. */
    const uint16_t *voxel = levels.voxel;
    uint16_t beside[16];
    find_beside(&offsets, beside);
    Py_BEGIN_ALLOW_THREADS
    FOR_EACH_VOXEL(levels, offsets) {
        int32_t root = (int32_t)i;
        if (!voxel[i])
            continue;
        parent[i] = root;
        for (unsigned bits = same.bits[i]; bits;) {
            int k = __builtin_ctz(bits);
            bits &= (bits - 1) & ~(unsigned)beside[k];
            int32_t other = root_of(parent, (int32_t)(i - offsets.step[k]));
            if (other < root) { /* the root is a zone's first voxel, so every parent is before its child */
                parent[root] = other;
                root = other;
            } else {
                parent[other] = root;
            }
        }
    }
    /* Parents are before their children. So one forward pass sets every voxel's parent to its root. The same pass
     * counts: it stores -voxels in the root's own place. */
    FOR_EACH_VOXEL(levels, offsets) {
        if (!voxel[i])
            continue;
        if (parent[i] == (int32_t)i) {
            parent[i] = -1;
            found++;
        } else {
            int32_t above = parent[i];
            if (parent[above] >= 0)
                above = parent[above]; /* its parent is already its root */
            parent[above]--;
            parent[i] = above;
        }
    }
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize(NULL, found * 2 * (Py_ssize_t)sizeof(int32_t));
    if (result) {
        int32_t *pair = (int32_t *)PyBytes_AsString(result);
        Py_BEGIN_ALLOW_THREADS
        FOR_EACH_VOXEL(levels, offsets)
            if (voxel[i] && parent[i] < 0) {
                *pair++ = voxel[i] - 1;
                *pair++ = -parent[i];
            }
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(parent);
    PyBuffer_Release(&levels.view);
    PyBuffer_Release(&same.view);
    return result;
}

PyDoc_STRVAR(gldm_doc,
             "gldm(levels, offsets, values, tolerance, out): out[i, n] += voxels of level i with n neighbours, at plus or minus the offsets, whose grey value, values[level], differs by at most the tolerance.");

static PyObject *gldm(PyObject *self, PyObject *args)
{
    PyObject *objects[4];
    long tolerance;
    Py_buffer values;
    Texture t;
    if (!PyArg_ParseTuple(args, "OOOlO", &objects[0], &objects[1], &objects[2], &tolerance, &objects[3]))
        return NULL;
    if (take(objects[2], &values, "l", 1, 0, "values") < 0)
        return NULL;
    if (open_texture(&t, objects[0], objects[1], count_of(&values) - 1, objects[3], "i", 2) < 0) {
        PyBuffer_Release(&values);
        return NULL;
    }
    const Py_ssize_t *size = t.levels.size, *reach = t.offsets.reach, wide = size[2] - 2 * reach[2];
    uint16_t *row = PyMem_Malloc((size_t)(size[2] + 1) * sizeof *row);
    if (!row) {
        PyErr_NoMemory();
    } else if (t.out.shape[0] != t.grey || t.out.shape[1] != 2 * t.offsets.count + 1) {
        PyErr_SetString(PyExc_ValueError, "out must be (grey, 2 * offsets + 1)");
    } else {
        const long *value = values.buf;
        const Py_ssize_t most = t.out.shape[1];
        int32_t *out = t.out.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t z = reach[0]; z < size[0] - reach[0]; z++)
            for (Py_ssize_t y = reach[1]; y < size[1] - reach[1]; y++) {
                const uint16_t *here = t.levels.voxel + (z * size[1] + y) * size[2] + reach[2];
                memset(row, 0, (size_t)wide * sizeof *row);
                for (Py_ssize_t k = 0; k < t.offsets.count; k++) {
                    const uint16_t *before = here - t.offsets.step[k], *after = here + t.offsets.step[k];
                    if (tolerance == 0)
                        for (Py_ssize_t x = 0; x < wide; x++)
                            row[x] = (uint16_t)(row[x] + (here[x] == before[x]) + (here[x] == after[x]));
                    else
                        for (Py_ssize_t x = 0; x < wide; x++) {
                            long low = value[here[x]] - tolerance, high = value[here[x]] + tolerance;
                            row[x] = (uint16_t)(row[x] + (before[x] && value[before[x]] >= low && value[before[x]] <= high) +
                                                (after[x] && value[after[x]] >= low && value[after[x]] <= high));
                        }
                }
                for (Py_ssize_t x = 0; x < wide; x++)
                    if (here[x])
                        out[(here[x] - 1) * most + row[x]]++;
            }
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(row);
    PyBuffer_Release(&values);
    return close_texture(&t);
}

PyDoc_STRVAR(ngtdm_doc,
             "ngtdm(levels, offsets, tones, out): out[i] += (1, |tone - mean tone of its neighbours|) for each voxel of level i; without neighbours, at plus or minus the offsets, it differs by 0.\n\n"
             "The tones are the volume of grey values, 0 outside.");

static PyObject *ngtdm(PyObject *self, PyObject *args)
{
    PyObject *objects[4];
    long grey;
    Py_buffer tones;
    Texture t;
    if (!PyArg_ParseTuple(args, "OOlOO", &objects[0], &objects[1], &grey, &objects[2], &objects[3]))
        return NULL;
    if (take(objects[2], &tones, "i", 3, 0, "tones") < 0)
        return NULL;
    if (open_texture(&t, objects[0], objects[1], grey, objects[3], "d", 2) < 0) {
        PyBuffer_Release(&tones);
        return NULL;
    }
    const Py_ssize_t *size = t.levels.size, *reach = t.offsets.reach, wide = size[2] - 2 * reach[2];
    int fits = t.out.shape[0] == grey && t.out.shape[1] == 2;
    for (int axis = 0; axis < 3; axis++)
        fits &= tones.shape[axis] == size[axis];
    int64_t *sum = PyMem_Malloc((size_t)(size[2] + 1) * sizeof *sum);
    int32_t *neighbours = PyMem_Malloc((size_t)(size[2] + 1) * sizeof *neighbours);
    if (!sum || !neighbours) {
        PyErr_NoMemory();
    } else if (!fits) {
        PyErr_SetString(PyExc_ValueError, "out must be (grey, 2), and the tones have the shape of the levels");
    } else {
        double *out = t.out.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t z = reach[0]; z < size[0] - reach[0]; z++)
            for (Py_ssize_t y = reach[1]; y < size[1] - reach[1]; y++) {
                Py_ssize_t from = (z * size[1] + y) * size[2] + reach[2];
                const uint16_t *here = t.levels.voxel + from;
                const int32_t *tone = (const int32_t *)tones.buf + from;
                memset(sum, 0, (size_t)wide * sizeof *sum);
                memset(neighbours, 0, (size_t)wide * sizeof *neighbours);
                for (Py_ssize_t k = 0; k < t.offsets.count; k++) {
                    const int32_t *before = tone - t.offsets.step[k], *after = tone + t.offsets.step[k];
                    for (Py_ssize_t x = 0; x < wide; x++) {
                        sum[x] += (int64_t)before[x] + after[x];
                        neighbours[x] += (before[x] != 0) + (after[x] != 0);
                    }
                }
                for (Py_ssize_t x = 0; x < wide; x++) {
                    if (!here[x])
                        continue;
                    double *line = out + 2 * (here[x] - 1);
                    line[0] += 1;
                    if (neighbours[x]) /* a voxel without neighbours counts, too, as in PyRadiomics */
                        line[1] += fabs((double)tone[x] - (double)sum[x] / neighbours[x]);
                }
            }
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(sum);
    PyMem_Free(neighbours);
    PyBuffer_Release(&tones);
    return close_texture(&t);
}

/* --- shape --------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(mesh_counts_doc,
             "mesh_counts(mask, out): out[kind] += (1, z, y, x) for each 2x2x2 neighbourhood of that kind, out being (256, 4).\n\n"
             "Bit 4 z + 2 y + x of the kind is set where that corner is inside; kinds 0 and 255 have no surface and are left out.");

static PyObject *mesh_counts(PyObject *self, PyObject *args)
{
    static const Wanted wanted[] = {{"?", 3, 0, "mask"}, {"l", 2, 1, "out"}};
    Py_buffer views[2], *mask = &views[0], *out = &views[1];
    if (take_all(args, wanted, 2, views) < 0)
        return NULL;
    if (out->shape[0] != 256 || out->shape[1] != 4) {
        PyErr_SetString(PyExc_ValueError, "out must be (256, 4)");
    } else {
        long *count = out->buf;
        Py_ssize_t wide = mask->shape[2];
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t z = 0; z + 1 < mask->shape[0]; z++)
            for (Py_ssize_t y = 0; y + 1 < mask->shape[1]; y++) {
                const unsigned char *a = (const unsigned char *)mask->buf + (z * mask->shape[1] + y) * wide, *b = a + wide;
                const unsigned char *c = a + mask->shape[1] * wide, *d = c + wide;
                /* The four voxels at x are bits 0, 2, 4, 6; those at x + 1 are bits 1, 3, 5, 7. */
                unsigned left = wide ? a[0] | b[0] << 2 | c[0] << 4 | d[0] << 6 : 0;
                for (Py_ssize_t x = 0; x + 1 < wide; x++) {
                    unsigned right = a[x + 1] | b[x + 1] << 2 | c[x + 1] << 4 | d[x + 1] << 6;
                    unsigned kind = (left | right << 1) & 255;
                    left = right;
                    if (kind == 0 || kind == 255)
                        continue;
                    long *line = count + 4 * kind;
                    line[0]++;
                    line[1] += z;
                    line[2] += y;
                    line[3] += x;
                }
            }
        Py_END_ALLOW_THREADS
    }
    release_all(views, 2);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(moments_doc, "moments(mask, out): voxels inside, their sums of z, y, x and of zz, zy, zx, yy, yx, xx; out holds 10.");

static PyObject *moments(PyObject *self, PyObject *args)
{
    static const Wanted wanted[] = {{"?", 3, 0, "mask"}, {"l", 1, 1, "out"}};
    Py_buffer views[2], *mask = &views[0], *out = &views[1];
    if (take_all(args, wanted, 2, views) < 0)
        return NULL;
    if (count_of(out) != 10) {
        PyErr_SetString(PyExc_ValueError, "out must hold 10");
    } else {
        long *sum = out->buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t z = 0; z < mask->shape[0]; z++)
            for (Py_ssize_t y = 0; y < mask->shape[1]; y++) {
                const unsigned char *row = (const unsigned char *)mask->buf + (z * mask->shape[1] + y) * mask->shape[2];
                long n = 0, s = 0, ss = 0;
                for (Py_ssize_t x = 0; x < mask->shape[2]; x++) {
                    long inside = row[x], at = inside * x;
                    n += inside;
                    s += at;
                    ss += at * x;
                }
                sum[0] += n;
                sum[1] += n * z;
                sum[2] += n * y;
                sum[3] += s;
                sum[4] += n * z * z;
                sum[5] += n * z * y;
                sum[6] += s * z;
                sum[7] += n * y * y;
                sum[8] += s * y;
                sum[9] += ss;
            }
        Py_END_ALLOW_THREADS
    }
    release_all(views, 2);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* A mesh vertex in half voxels, and its distance from the centre of the box in mm. */
typedef struct {
    int32_t at[3];
    double radius;
} Vertex;

typedef struct {
    Vertex *item;
    size_t count, room;
} Vertices;

static int append(Vertices *list, Vertex vertex)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 1024;
        Vertex *item = realloc(list->item, room * sizeof *item); /* Python's allocator needs the interpreter's lock */
        if (!item)
            return -1;
        list->item = item;
        list->room = room;
    }
    list->item[list->count++] = vertex;
    return 0;
}

static double squared(double value)
{
    return value * value;
}

/* First and last place where two lines of n voxels differ; last is -1 if they are equal. */
static void differ(const unsigned char *a, const unsigned char *b, Py_ssize_t step, Py_ssize_t n, Py_ssize_t *first, Py_ssize_t *last)
{
    Py_ssize_t low = 0, high = n - 1;
    while (low < n && a[low * step] == b[low * step])
        low++;
    while (high > low && a[high * step] == b[high * step])
        high--;
    *first = low;
    *last = low < n ? high : -1;
}

/* Twice the area of the triangle o, a, b, seen from above; positive if the turn is to the left. */
static int64_t turn(const int32_t o[2], const int32_t a[2], const int32_t b[2])
{
    return (int64_t)(a[0] - o[0]) * (b[1] - o[1]) - (int64_t)(a[1] - o[1]) * (b[0] - o[0]);
}

/* Corners of the convex hull of points in ascending order (Andrew's monotone chain, in exact integers). */
static Py_ssize_t hull_of(int32_t (*point)[2], Py_ssize_t n, int32_t (*hull)[2])
{
    Py_ssize_t corners = 0;
    for (int side = 0; side < 2; side++) {
        Py_ssize_t base = corners;
        for (Py_ssize_t k = 0; k < n; k++) {
            const int32_t *next = point[side ? n - 1 - k : k];
            while (corners >= base + 2 && turn(hull[corners - 2], hull[corners - 1], next) <= 0)
                corners--;
            memcpy(hull[corners++], next, sizeof *hull);
        }
        if (corners > base + 1)
            corners--; /* the last corner of one side is the first of the other */
    }
    return corners;
}

/* The voxels of one plane, and its place in the volume. */
typedef struct {
    const unsigned char *voxel;
    Py_ssize_t lines, length;   /* of the plane, in voxels */
    Py_ssize_t line, along;     /* steps through the buffer from line to line, and along a line */
    Py_ssize_t across;          /* step to the next plane */
} Plane;

/* The outermost mesh vertices on each line of half-plane `half`, ascending. They include every corner of the hull. */
static Py_ssize_t rim_of(const Plane *plane, Py_ssize_t half, int32_t (*point)[2])
{
    const unsigned char *voxel = plane->voxel + half / 2 * plane->across;
    Py_ssize_t n = 0, first, last;
    for (Py_ssize_t k = 0; k < plane->lines; k++) {
        const unsigned char *line = voxel + k * plane->line;
        if (half % 2) { /* midway between two layers of voxels: vertices are where the layers differ */
            differ(line, line + plane->across, plane->along, plane->length, &first, &last);
            if (last >= 0) {
                point[n][0] = (int32_t)(2 * k), point[n++][1] = (int32_t)(2 * first);
                if (last > first)
                    point[n][0] = (int32_t)(2 * k), point[n++][1] = (int32_t)(2 * last);
            }
            continue;
        }
        /* On the line, one vertex before its first voxel and one after its last (the border of the box is empty). */
        for (first = 0; first < plane->length && !line[first * plane->along]; first++)
            ;
        if (first < plane->length) {
            for (last = plane->length - 1; !line[last * plane->along]; last--)
                ;
            point[n][0] = (int32_t)(2 * k), point[n++][1] = (int32_t)(2 * first - 1);
            point[n][0] = (int32_t)(2 * k), point[n++][1] = (int32_t)(2 * last + 1);
        }
        if (k + 1 < plane->lines) { /* midway to the next line */
            differ(line, line + plane->line, plane->along, plane->length, &first, &last);
            if (last >= 0) {
                point[n][0] = (int32_t)(2 * k + 1), point[n++][1] = (int32_t)(2 * first);
                if (last > first)
                    point[n][0] = (int32_t)(2 * k + 1), point[n++][1] = (int32_t)(2 * last);
            }
        }
    }
    return n;
}

static int by_radius(const void *a, const void *b)
{
    double left = ((const Vertex *)a)->radius, right = ((const Vertex *)b)->radius;
    return (left < right) - (left > right);
}

/* Largest squared distance. Vertices are in descending order of their distance r from the same centre. The distance of
 * two vertices is at most the sum of both r, so most pairs need not be computed. */
static double widest(const Vertices *list, const double half[3])
{
    double best = 0, length = 0;
    for (size_t i = 1; i < list->count; i++) {
        const Vertex *p = list->item + i;
        if (list->item[0].radius + p->radius < length)
            break;
        for (size_t j = 0; j < i; j++) {
            const Vertex *q = list->item + j;
            if (p->radius + q->radius < length)
                break;
            double d = squared((p->at[0] - q->at[0]) * half[0]) + squared((p->at[1] - q->at[1]) * half[1]) +
                       squared((p->at[2] - q->at[2]) * half[2]);
            if (d > best) {
                best = d;
                length = sqrt(d) * (1 - 1e-12); /* a small tolerance, because the bound is rounded, too */
            }
        }
    }
    return best;
}

/* Largest distance within planes across `axis`, in mm; the hull corners of all planes are appended to `corners`. */
static double planar(const Py_buffer *mask, int axis, const double half[3], Vertices *corners, int32_t (*work)[2], Py_ssize_t room)
{
    const Py_ssize_t *n = mask->shape, step[3] = {n[1] * n[2], n[2], 1};
    int a = axis == 0 ? 1 : 0, b = axis == 2 ? 1 : 2;
    Plane plane = {mask->buf, n[a], n[b], step[a], step[b], step[axis]};
    int32_t(*hull)[2] = work + room;
    double best = 0;
    for (Py_ssize_t k = 0; k < 2 * n[axis] - 1; k++) {
        Py_ssize_t points = rim_of(&plane, k, work), found = points ? hull_of(work, points, hull) : 0;
        for (Py_ssize_t i = 0; i < found; i++) {
            for (Py_ssize_t j = 0; j < i; j++) {
                double d = squared((hull[i][0] - hull[j][0]) * half[a]) + squared((hull[i][1] - hull[j][1]) * half[b]);
                best = d > best ? d : best;
            }
            if (corners) {
                Vertex vertex;
                vertex.at[axis] = (int32_t)k, vertex.at[a] = hull[i][0], vertex.at[b] = hull[i][1];
                vertex.radius = 0;
                for (int d = 0; d < 3; d++)
                    vertex.radius += squared((vertex.at[d] - (double)(n[d] - 1)) * half[d]);
                vertex.radius = sqrt(vertex.radius);
                if (append(corners, vertex) < 0)
                    return -1;
            }
        }
    }
    return sqrt(best);
}

PyDoc_STRVAR(diameters_doc,
             "diameters(mask, z, y, x, wanted) -> tuple: greatest distance in mm between mesh vertices of the same z, of the same y, of the same x, and of any; only those whose bit of `wanted` is set, else 0.\n\n"
             "The mask must have an empty layer on every side; a vertex lies midway on each edge that the surface cuts.");

static PyObject *diameters(PyObject *self, PyObject *args)
{
    PyObject *object;
    Py_buffer mask;
    double half[3], found[4] = {0, 0, 0, 0};
    long wanted;
    if (!PyArg_ParseTuple(args, "Odddl", &object, &half[0], &half[1], &half[2], &wanted))
        return NULL;
    if (take(object, &mask, "?", 3, 0, "mask") < 0)
        return NULL;
    Py_ssize_t longest = 0;
    for (int axis = 0; axis < 3; axis++) {
        half[axis] /= 2;
        longest = mask.shape[axis] > longest ? mask.shape[axis] : longest;
    }
    /* Two lines with at most two points each, for every voxel along the longest side. Half a hull may have as many. */
    Py_ssize_t room = 4 * longest + 4;
    int32_t(*work)[2] = longest < INT32_MAX / 8 ? PyMem_Malloc(3 * (size_t)room * sizeof *work) : NULL;
    Vertices corners = {NULL, 0, 0};
    int failed = !work;
    Py_BEGIN_ALLOW_THREADS
    for (int axis = 0; axis < 3 && !failed; axis++) {
        int solid = axis == 0 && wanted & 8; /* corners of the 3D hull are also corners of the hulls of their planes */
        if (wanted & 1 << axis || solid)
            found[axis] = planar(&mask, axis, half, solid ? &corners : NULL, work, room);
        failed |= found[axis] < 0;
    }
    if (wanted & 8 && !failed && corners.count) {
        qsort(corners.item, corners.count, sizeof *corners.item, by_radius);
        found[3] = sqrt(widest(&corners, half));
    }
    Py_END_ALLOW_THREADS
    PyMem_Free(work);
    free(corners.item);
    PyBuffer_Release(&mask);
    return failed ? PyErr_NoMemory() : Py_BuildValue("dddd", found[0], found[1], found[2], found[3]);
}

/* --- resampling ---------------------------------------------------------------------------------------------- */

/* Arguments of both interpolations: an image, the places of the new grid's planes along each axis, the mask of needed
 * voxels, and the output. Image and output are both int16 (`whole`) or both float64. */
enum { IMAGE, PLACES, MASK = PLACES + 3, OUT, BUFFERS };

typedef struct {
    Py_buffer view[BUFFERS];
    int whole;
} Grid;

/* Take the buffers. If they do not fit each other, release all, set an exception and return -1. */
static int open_grid(PyObject *args, Grid *grid)
{
    Wanted wanted[BUFFERS] = {{"h", 3, 0, "image"}, {"d", 1, 0, "z"}, {"d", 1, 0, "y"}, {"d", 1, 0, "x"}, {"?", 3, 0, "mask"}, {"h", 3, 1, "out"}};
    grid->whole = 1;
    if (take_all(args, wanted, BUFFERS, grid->view) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return -1;
        PyErr_Clear();
        wanted[IMAGE].format = wanted[OUT].format = "d";
        grid->whole = 0;
        if (take_all(args, wanted, BUFFERS, grid->view) < 0)
            return -1;
    }
    const Py_buffer *image = &grid->view[IMAGE], *mask = &grid->view[MASK], *out = &grid->view[OUT];
    const char *unfit = NULL;
    for (int axis = 0; axis < 3; axis++) {
        const Py_buffer *places = &grid->view[PLACES + axis];
        const Py_ssize_t n = places->shape[0];
        if (out->shape[axis] != n || mask->shape[axis] != n)
            unfit = "mask and out must have one voxel for each place";
        for (Py_ssize_t i = 0; i < n && !unfit; i++) { /* ITK's faces: half a voxel beyond the outermost centres */
            const double place = ((const double *)places->buf)[i];
            if (!(place >= -0.5 && place < (double)image->shape[axis] - 0.5))
                unfit = "every place must lie inside the image";
        }
    }
    if (unfit) {
        PyErr_SetString(PyExc_ValueError, unfit);
        release_all(grid->view, BUFFERS);
        return -1;
    }
    return 0;
}

static PyObject *close_grid(Grid *grid)
{
    release_all(grid->view, BUFFERS);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static inline double sample(const Grid *grid, Py_ssize_t i)
{
    const void *image = grid->view[IMAGE].buf;
    return grid->whole ? ((const int16_t *)image)[i] : ((const double *)image)[i];
}

/* Store a new voxel. Integers are cut towards zero and limited to the range of their type, as in ITK. */
static inline void put(const Grid *grid, Py_ssize_t i, double value)
{
    if (!grid->whole)
        ((double *)grid->view[OUT].buf)[i] = value;
    else
        ((int16_t *)grid->view[OUT].buf)[i] = value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : (int16_t)value;
}

static inline Py_ssize_t floor_of(double value)
{
    const Py_ssize_t cut = (Py_ssize_t)value;
    return cut - ((double)cut > value);
}

/* The place of an output index between two input voxels. */
typedef struct {
    Py_ssize_t below, above;
    double weight;
} Between;

/* Compute the places along one axis as in ITK's LinearInterpolateImageFunction. */
static void between(const Py_buffer *places, Py_ssize_t size, Between *found)
{
    const double *place = places->buf;
    for (Py_ssize_t i = 0; i < places->shape[0]; i++) {
        Py_ssize_t below = floor_of(place[i]);
        below = below < 0 ? 0 : below;
        double weight = place[i] - (double)below;
        found[i].below = below;
        found[i].above = below + 1 < size ? below + 1 : below;
        found[i].weight = weight > 0 ? weight : 0; /* before the first voxel's centre its value is used */
    }
}

static void interpolate_linearly(const Grid *grid, Between *const step[3])
{
    const Py_ssize_t *size = grid->view[IMAGE].shape, *n = grid->view[OUT].shape;
    for (Py_ssize_t z = 0, i = 0; z < n[0]; z++)
        for (Py_ssize_t y = 0; y < n[1]; y++) {
            const Between *bz = &step[0][z], *by = &step[1][y];
            Py_ssize_t row[4];
            for (int corner = 0; corner < 4; corner++)
                row[corner] = ((corner & 2 ? bz->above : bz->below) * size[1] + (corner & 1 ? by->above : by->below)) * size[2];
            for (Py_ssize_t x = 0; x < n[2]; x++, i++) {
                if (!((const unsigned char *)grid->view[MASK].buf)[i])
                    continue;
                const Between *bx = &step[2][x];
                double line[4];
                for (int corner = 0; corner < 4; corner++) {
                    const double a = sample(grid, row[corner] + bx->below), b = sample(grid, row[corner] + bx->above);
                    line[corner] = a + (b - a) * bx->weight;
                }
                /* Keep the order x, y, z and this form: another one rounds differently, and the cast can make 1 HU of that. */
                double front = line[0] + (line[1] - line[0]) * by->weight, back = line[2] + (line[3] - line[2]) * by->weight;
                put(grid, i, front + (back - front) * bz->weight);
            }
        }
}

PyDoc_STRVAR(resample_linear_doc,
             "resample_linear(image, z, y, x, mask, out): trilinear value at each place (z[i], y[j], x[k]) inside the mask, in voxels of the image.\n\n"
             "Image and out are int16 or both float64; integers are cut towards zero, as ITK casts them.");

static PyObject *resample_linear(PyObject *self, PyObject *args)
{
    Grid grid;
    if (open_grid(args, &grid) < 0)
        return NULL;
    const Py_ssize_t *n = grid.view[OUT].shape;
    Between *steps = PyMem_Malloc((size_t)(n[0] + n[1] + n[2] + 1) * sizeof *steps);
    if (!steps) {
        PyErr_NoMemory();
    } else {
        Between *step[3] = {steps, steps + n[0], steps + n[0] + n[1]};
        Py_BEGIN_ALLOW_THREADS
        for (int axis = 0; axis < 3; axis++)
            between(&grid.view[PLACES + axis], grid.view[IMAGE].shape[axis], step[axis]);
        interpolate_linearly(&grid, step);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(steps);
    return close_grid(&grid);
}

enum { T_IMAGE, T_Z, T_Y, T_X, T_MASK, T_OUT, T_BUFFERS };

PyDoc_STRVAR(resample_turned_doc,
             "resample_turned(image, z, y, x, mask, out): trilinear value at each place (z[i], y[j, k], x[j, k]) inside the mask, in voxels of the image.\n\n"
             "For grids that are turned within the slices. Beyond the outermost voxels' centres their values hold. Integers are cut towards zero.");

static PyObject *resample_turned(PyObject *self, PyObject *args)
{
    Wanted wanted[T_BUFFERS] = {{"h", 3, 0, "image"}, {"d", 1, 0, "z"}, {"d", 2, 0, "y"}, {"d", 2, 0, "x"}, {"?", 3, 0, "mask"}, {"h", 3, 1, "out"}};
    Py_buffer view[T_BUFFERS];
    int whole = 1;
    if (take_all(args, wanted, T_BUFFERS, view) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return NULL;
        PyErr_Clear();
        wanted[T_IMAGE].format = wanted[T_OUT].format = "d";
        whole = 0;
        if (take_all(args, wanted, T_BUFFERS, view) < 0)
            return NULL;
    }
    const Py_ssize_t *size = view[T_IMAGE].shape, *n = view[T_OUT].shape;
    int fits = size[0] > 0 && size[1] > 0 && size[2] > 0 && view[T_Z].shape[0] == n[0];
    for (int axis = 0; axis < 3; axis++)
        fits &= view[T_MASK].shape[axis] == n[axis];
    for (int axis = 0; axis < 2; axis++)
        fits &= view[T_Y].shape[axis] == n[axis + 1] && view[T_X].shape[axis] == n[axis + 1];
    if (fits) {
        const double *place[3] = {view[T_Z].buf, view[T_Y].buf, view[T_X].buf};
        const unsigned char *inside = view[T_MASK].buf;
        Grid grid; /* for sample and put, which use only these two buffers */
        grid.view[IMAGE] = view[T_IMAGE], grid.view[OUT] = view[T_OUT], grid.whole = whole;
        const Py_ssize_t plane = n[1] * n[2];
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < n[0] * plane; i++) {
            if (!inside[i])
                continue;
            const double at[3] = {place[0][i / plane], place[1][i % plane], place[2][i % plane]};
            Py_ssize_t below[3], above[3];
            double weight[3];
            for (int axis = 0; axis < 3; axis++) {
                const double last = (double)(size[axis] - 1);
                const double held = at[axis] > 0 ? (at[axis] < last ? at[axis] : last) : 0; /* NaN becomes 0 */
                below[axis] = (Py_ssize_t)held;
                above[axis] = below[axis] + 1 < size[axis] ? below[axis] + 1 : below[axis];
                weight[axis] = held - (double)below[axis];
            }
            double face[2];
            for (int k = 0; k < 2; k++) {
                const Py_ssize_t slice = (k ? above[0] : below[0]) * size[1];
                double line[2];
                for (int j = 0; j < 2; j++) {
                    const Py_ssize_t row = (slice + (j ? above[1] : below[1])) * size[2];
                    const double a = sample(&grid, row + below[2]), b = sample(&grid, row + above[2]);
                    line[j] = a + (b - a) * weight[2];
                }
                face[k] = line[0] + (line[1] - line[0]) * weight[1];
            }
            put(&grid, i, face[0] + (face[1] - face[0]) * weight[0]);
        }
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_ValueError, "mask, out and places must fit each other, and the image must not be empty");
    }
    release_all(view, T_BUFFERS);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

/* A cubic B-spline as in ITK (BSplineDecompositionImageFilter, BSplineInterpolateImageFunction; Unser 1999, Box 2). A
 * recursive filter turns samples into coefficients, once along each axis. Then 4 x 4 x 4 coefficients are weighted.
 *
 * ITK filters the whole volume; this code filters only the box of the region and a margin. The contribution of a sample
 * to a coefficient falls by the pole, 0.268, with each voxel between them: to 1e-16 over 28 voxels. Beyond that, two
 * filters with different starts soon give equal rounded values; the probability that they still differ falls by 0.268
 * with each voxel. With this margin the effect of the start is 1e-23 of the samples, and the result is ITK's to the last
 * bit. At the volume's edge the filter starts as in ITK. */
#define POLE (1.7320508075688772 - 2.0) /* sqrt(3) - 2 */
#define GAIN ((1.0 - POLE) * (1.0 - 1.0 / POLE))
#define HORIZON 18 /* here the pole's power falls below 1e-10, and ITK stops its sum over the mirrored start */
#define MARGIN 40
#define ROWS 8 /* rows filtered in parallel, because a step of the filter must wait for the step before */
#define LANES 4 /* voxels interpolated in parallel */

/* The pole's n-th power, rounded once. */
static double pole_to_the(Py_ssize_t n)
{
    long double power = 1;
    while (n-- > 0)
        power *= POLE;
    return (double)power;
}

/* Turn samples into coefficients in place: `n` samples at distance `step`, on `lanes` lines in parallel. Coefficients
 * before the `wanted`-th are not finished. */
static void to_coefficients(double *restrict first, Py_ssize_t n, Py_ssize_t step, Py_ssize_t lanes, Py_ssize_t wanted)
{
    /* The line is mirrored at its first sample. Add the filter's sum over this mirrored part. */
    double power = POLE;
    for (Py_ssize_t k = 0; k < lanes; k++)
        first[k] *= GAIN;
    if (n > HORIZON) {
        for (Py_ssize_t i = 1; i < HORIZON; i++, power *= POLE)
            for (Py_ssize_t k = 0; k < lanes; k++)
                first[k] += power * (GAIN * first[i * step + k]);
    } else {
        double back = pole_to_the(n - 1);
        for (Py_ssize_t k = 0; k < lanes; k++)
            first[k] += back * (GAIN * first[(n - 1) * step + k]);
        back *= back * (1.0 / POLE);
        for (Py_ssize_t i = 1; i < n - 1; i++, power *= POLE, back *= 1.0 / POLE)
            for (Py_ssize_t k = 0; k < lanes; k++)
                first[k] += (power + back) * (GAIN * first[i * step + k]);
        for (Py_ssize_t k = 0; k < lanes; k++)
            first[k] /= 1.0 - power * power;
    }
    for (Py_ssize_t i = 1; i < n; i++) {
        double *restrict here = first + i * step;
        const double *before = here - step;
        for (Py_ssize_t k = 0; k < lanes; k++)
            here[k] = GAIN * here[k] + POLE * before[k];
    }
    double *restrict last = first + (n - 1) * step;
    for (Py_ssize_t k = 0; k < lanes; k++)
        last[k] = POLE / (POLE * POLE - 1.0) * (POLE * last[k - step] + last[k]);
    for (Py_ssize_t i = n - 2; i >= wanted; i--) {
        double *restrict here = first + i * step;
        const double *after = here + step;
        for (Py_ssize_t k = 0; k < lanes; k++)
            here[k] = POLE * (after[k] - here[k]);
    }
}

/* One axis: the four knots and their weights for each place, in rows of `n` places; the range of used knots (low, high);
 * the range of the image's voxels to filter (from, to). */
typedef struct {
    Py_ssize_t n;
    Py_ssize_t *knot;
    double *weight;
    Py_ssize_t low, high, from, to;
} Spline;

/* Fill in an axis; the buffers have four rows of `n`, and are 0 after the last place. */
static void lay_out(const Py_buffer *places, Py_ssize_t size, Spline *axis)
{
    axis->low = size, axis->high = -1;
    for (Py_ssize_t i = 0; i < places->shape[0]; i++) {
        const double place = ((const double *)places->buf)[i];
        const Py_ssize_t below = floor_of((float)place); /* ITK rounds to single precision here, too */
        const double w = place - (double)below;
        double *weight = axis->weight + i;
        const Py_ssize_t n = axis->n;
        weight[3 * n] = 1.0 / 6.0 * w * w * w;
        weight[0] = 1.0 / 6.0 + 0.5 * w * (w - 1.0) - weight[3 * n];
        weight[2 * n] = w + weight[0] - 2.0 * weight[3 * n];
        weight[n] = 1.0 - weight[0] - weight[2 * n] - weight[3 * n];
        for (Py_ssize_t j = 0; j < 4; j++) {
            Py_ssize_t knot = below - 1 + j;
            knot = knot < 0 ? -knot : knot >= size ? 2 * (size - 1) - knot : knot; /* mirrored */
            axis->knot[j * n + i] = knot;
            axis->low = knot < axis->low ? knot : axis->low;
            axis->high = knot > axis->high ? knot : axis->high;
        }
    }
    axis->from = axis->low > MARGIN ? axis->low - MARGIN : 0;
    axis->to = axis->high + MARGIN < size ? axis->high + MARGIN : size - 1;
    for (Py_ssize_t j = 0; j < 4; j++) /* from here on, knots are counted from the first kept one */
        for (Py_ssize_t i = 0; i < places->shape[0]; i++)
            axis->knot[j * axis->n + i] -= axis->low;
}

/* Filter rows along x, and keep their used part: the coefficients are (filtered z, filtered y, used x). */
static void filter_rows(const Grid *grid, const Spline axis[3], double *scratch, double *coefficient)
{
    const Spline *az = &axis[0], *ay = &axis[1], *ax = &axis[2];
    const Py_ssize_t *size = grid->view[IMAGE].shape, length = ax->to - ax->from + 1, used = ax->high - ax->low + 1;
    for (Py_ssize_t z = az->from; z <= az->to; z++)
        for (Py_ssize_t y = ay->from; y <= ay->to; y += ROWS) {
            const Py_ssize_t rows = ay->to - y + 1 < ROWS ? ay->to - y + 1 : ROWS;
            for (Py_ssize_t row = 0; row < rows; row++) {
                const Py_ssize_t at = (z * size[1] + y + row) * size[2] + ax->from;
                for (Py_ssize_t x = 0; x < length; x++)
                    scratch[x * ROWS + row] = sample(grid, at + x);
            }
            to_coefficients(scratch, length, ROWS, ROWS, ax->low - ax->from);
            for (Py_ssize_t row = 0; row < rows; row++, coefficient += used)
                for (Py_ssize_t x = 0; x < used; x++)
                    coefficient[x] = scratch[(ax->low - ax->from + x) * ROWS + row];
        }
}

/* ITK's sum over 64 coefficients for every voxel inside the mask, in ITK's order: x is the fastest axis, z the slowest. */
static void interpolate_splines(const Grid *grid, const Spline axis[3], const double *coefficient, const Py_ssize_t step[2])
{
    const Spline *az = &axis[0], *ay = &axis[1], *ax = &axis[2];
    const Py_ssize_t *n = grid->view[OUT].shape;
    for (Py_ssize_t z = 0; z < n[0]; z++)
        for (Py_ssize_t y = 0; y < n[1]; y++) {
            const Py_ssize_t at = (z * n[1] + y) * n[2];
            const unsigned char *inside = (const unsigned char *)grid->view[MASK].buf + at;
            for (Py_ssize_t x = 0; x < n[2]; x += LANES) {
                const Py_ssize_t lanes = n[2] - x < LANES ? n[2] - x : LANES;
                if (!memchr(inside + x, 1, (size_t)lanes))
                    continue;
                double value[LANES] = {0};
                for (Py_ssize_t jz = 0; jz < 4; jz++)
                    for (Py_ssize_t jy = 0; jy < 4; jy++) {
                        const double wz = az->weight[jz * az->n + z], wy = ay->weight[jy * ay->n + y];
                        const double *line = coefficient + az->knot[jz * az->n + z] * step[0] + ay->knot[jy * ay->n + y] * step[1];
                        for (Py_ssize_t jx = 0; jx < 4; jx++) {
                            const double *wx = ax->weight + jx * ax->n + x;
                            const Py_ssize_t *knot = ax->knot + jx * ax->n + x;
                            for (int k = 0; k < LANES; k++)
                                value[k] += wx[k] * wy * wz * line[knot[k]];
                        }
                    }
                for (Py_ssize_t k = 0; k < lanes; k++)
                    if (inside[x + k])
                        put(grid, at + x + k, value[k]);
            }
        }
}

PyDoc_STRVAR(resample_bspline_doc,
             "resample_bspline(image, z, y, x, mask, out): value of the cubic B-spline at each place (z[i], y[j], x[k]) inside the mask, in voxels of the image.\n\n"
             "Image and out are int16 or both float64; integers are cut towards zero, as ITK casts them. The image has 3 voxels or more along each axis.");

static PyObject *resample_bspline(PyObject *self, PyObject *args)
{
    Grid grid;
    if (open_grid(args, &grid) < 0)
        return NULL;
    const Py_ssize_t *size = grid.view[IMAGE].shape;
    Spline axis[3];
    size_t room = 0;
    int enough = 1, none = 0;
    for (int d = 0; d < 3; d++) {
        axis[d].n = (grid.view[OUT].shape[d] + LANES - 1) / LANES * LANES;
        room += 4 * (size_t)axis[d].n;
        enough &= size[d] >= 3;
        none |= grid.view[OUT].shape[d] == 0;
    }
    if (!enough || none) {
        if (!enough)
            PyErr_SetString(PyExc_ValueError, "the image must have 3 voxels or more along each axis");
        return close_grid(&grid);
    }
    Py_ssize_t *knots = PyMem_Calloc(room, sizeof *knots);
    double *weights = PyMem_Calloc(room, sizeof *weights), *scratch = NULL, *coefficient = NULL;
    Py_ssize_t step[2] = {0, 0};
    if (knots && weights) {
        Py_ssize_t taken = 0;
        for (int d = 0; d < 3; d++) {
            axis[d].knot = knots + taken, axis[d].weight = weights + taken;
            taken += 4 * axis[d].n;
            lay_out(&grid.view[PLACES + d], size[d], &axis[d]);
        }
        step[1] = axis[2].high - axis[2].low + 1;
        step[0] = (axis[1].to - axis[1].from + 1) * step[1];
        scratch = PyMem_Calloc((size_t)(axis[2].to - axis[2].from + 1) * ROWS, sizeof *scratch);
        coefficient = PyMem_Malloc((size_t)(axis[0].to - axis[0].from + 1) * (size_t)step[0] * sizeof *coefficient);
    }
    if (!scratch || !coefficient) {
        PyErr_NoMemory();
    } else {
        const Py_ssize_t ahead[2] = {axis[0].low - axis[0].from, axis[1].low - axis[1].from};
        Py_BEGIN_ALLOW_THREADS
        filter_rows(&grid, axis, scratch, coefficient);
        for (Py_ssize_t z = 0; z <= axis[0].to - axis[0].from; z++)
            to_coefficients(coefficient + z * step[0], axis[1].to - axis[1].from + 1, step[1], step[1], ahead[1]);
        double *used = coefficient + ahead[1] * step[1];
        to_coefficients(used, axis[0].to - axis[0].from + 1, step[0], (axis[1].high - axis[1].low + 1) * step[1], ahead[0]);
        interpolate_splines(&grid, axis, used + ahead[0] * step[0], step);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(knots);
    PyMem_Free(weights);
    PyMem_Free(scratch);
    PyMem_Free(coefficient);
    return close_grid(&grid);
}

/* --- module -------------------------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"bounds", bounds, METH_VARARGS, bounds_doc},
    {"histogram", histogram, METH_VARARGS, histogram_doc},
    {"levels", levels, METH_VARARGS, levels_doc},
    {"glcm", glcm, METH_VARARGS, glcm_doc},
    {"alike", alike, METH_VARARGS, alike_doc},
    {"glrlm", glrlm, METH_VARARGS, glrlm_doc},
    {"zones", zones, METH_VARARGS, zones_doc},
    {"gldm", gldm, METH_VARARGS, gldm_doc},
    {"ngtdm", ngtdm, METH_VARARGS, ngtdm_doc},
    {"mesh_counts", mesh_counts, METH_VARARGS, mesh_counts_doc},
    {"moments", moments, METH_VARARGS, moments_doc},
    {"diameters", diameters, METH_VARARGS, diameters_doc},
    {"resample_linear", resample_linear, METH_VARARGS, resample_linear_doc},
    {"resample_turned", resample_turned, METH_VARARGS, resample_turned_doc},
    {"resample_bspline", resample_bspline, METH_VARARGS, resample_bspline_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "appliance.radiomics._kernels", "The loops over voxels, compiled.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernels(void)
{
    return PyModule_Create(&module);
}
