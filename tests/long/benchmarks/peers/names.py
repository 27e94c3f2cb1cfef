"""Each library's names of the stated features, in their order; None if it does not have the feature."""

from __future__ import annotations

from collections.abc import Mapping

from tests.long.benchmarks.bare import STATED

NAMES: Mapping[str, tuple[str | None, ...]] = {
    "flash-radiomics": STATED,  # PyRadiomics' own
    "mirp": (
        "morph_sphericity", "morph_diam", "stat_p10", "ih_entropy_fbs_w25.0", "stat_mean", "stat_skew",
        "cm_contrast_d1_3d_avg_fbs_w25.0", "cm_corr_d1_3d_avg_fbs_w25.0", "cm_inv_diff_mom_d1_3d_avg_fbs_w25.0",
        "cm_joint_entr_d1_3d_avg_fbs_w25.0", "cm_info_corr1_d1_3d_avg_fbs_w25.0", "rlm_rlnu_3d_avg_fbs_w25.0",
        "szm_zsnu_3d_fbs_w25.0", "szm_sze_3d_fbs_w25.0", "ngl_dc_entr_d1_a0.0_3d_fbs_w25.0",
    ),
    "nyxus": (
        "3SPHERICITY", None, "3P10", "3ENTROPY", "3MEAN", "3SKEWNESS", "3GLCM_CONTRAST_AVE",
        "3GLCM_CORRELATION_AVE", "3GLCM_IDM_AVE", "3GLCM_JE_AVE", "3GLCM_INFOMEAS1_AVE", "3GLRLM_RLN_AVE",
        "3GLSZM_SZN", "3GLSZM_SAE", "3GLDM_DE",
    ),
    "pictologics": (
        "sphericity_QCFX", "maximum_3d_diameter_L0JK", "10th_intensity_percentile_QG58",
        "discretised_intensity_entropy_TLU2", "mean_intensity_Q4LE", "intensity_skewness_KE2A", "contrast_ACUI",
        "correlation_NI2N", "inverse_difference_moment_WF0Z", "joint_entropy_TU9B",
        "information_correlation_1_R8DG", "run_length_non_uniformity_W92Y", "zone_size_non_uniformity_4JP3",
        "small_zone_emphasis_P001", "dependence_count_entropy_FCBV",
    ),
    "z-rad": (
        "morph_sphericity", "morph_diam", "stat_p10", "ih_entropy", "stat_mean", "stat_skew", "cm_contrast_3D_avg",
        "cm_corr_3D_avg", "cm_inv_diff_mom_3D_avg", "cm_joint_entr_3D_avg", "cm_info_corr1_3D_avg",
        "rlm_rlnu_3D_avg", "szm_zsnu_3D", "szm_sze_3D", "ngl_dc_entr_3D",
    ),
}  # fmt: skip
