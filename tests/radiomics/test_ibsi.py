"""The IBSI digital phantom: every feature that PyRadiomics defines as IBSI does, against the consensus value.

Reference: Zwanenburg et al., Radiology 2020, 295(2):328-338; values and tolerances of the IBSI reference set.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk

from appliance.radiomics.extract import extract
from appliance.spec import ALL_FEATURES, ExtractionSpec

# Feature -> tag of the consensus value, with the aggregation that PyRadiomics uses (3D, averaged over directions).
IBSI_TAGS = {
    "shape_Elongation": "morph_pca_elongation",
    "shape_Flatness": "morph_pca_flatness",
    "shape_MajorAxisLength": "morph_pca_maj_axis",
    "shape_Maximum3DDiameter": "morph_diam",
    "shape_MeshVolume": "morph_volume",
    "shape_Sphericity": "morph_sphericity",
    "shape_SurfaceArea": "morph_area_mesh",
    "shape_SurfaceVolumeRatio": "morph_av",
    "firstorder_10Percentile": "stat_p10",
    "firstorder_90Percentile": "stat_p90",
    "firstorder_Energy": "stat_energy",
    "firstorder_Entropy": "ih_entropy",
    "firstorder_InterquartileRange": "stat_iqr",
    "firstorder_Maximum": "stat_max",
    "firstorder_Mean": "stat_mean",
    "firstorder_MeanAbsoluteDeviation": "stat_mad",
    "firstorder_Median": "stat_median",
    "firstorder_Minimum": "stat_min",
    "firstorder_Range": "stat_range",
    "firstorder_RobustMeanAbsoluteDeviation": "stat_rmad",
    "firstorder_RootMeanSquared": "stat_rms",
    "firstorder_Skewness": "stat_skew",
    "firstorder_Uniformity": "ih_uniformity",
    "firstorder_Variance": "stat_var",
    "glcm_Autocorrelation": "cm_auto_corr_3D_avg",
    "glcm_ClusterProminence": "cm_clust_prom_3D_avg",
    "glcm_ClusterShade": "cm_clust_shade_3D_avg",
    "glcm_ClusterTendency": "cm_clust_tend_3D_avg",
    "glcm_Contrast": "cm_contrast_3D_avg",
    "glcm_Correlation": "cm_corr_3D_avg",
    "glcm_DifferenceAverage": "cm_diff_avg_3D_avg",
    "glcm_DifferenceEntropy": "cm_diff_entr_3D_avg",
    "glcm_DifferenceVariance": "cm_diff_var_3D_avg",
    "glcm_Id": "cm_inv_diff_3D_avg",
    "glcm_Idm": "cm_inv_diff_mom_3D_avg",
    "glcm_Idmn": "cm_inv_diff_mom_norm_3D_avg",
    "glcm_Idn": "cm_inv_diff_norm_3D_avg",
    "glcm_Imc1": "cm_info_corr1_3D_avg",
    "glcm_Imc2": "cm_info_corr2_3D_avg",
    "glcm_InverseVariance": "cm_inv_var_3D_avg",
    "glcm_JointAverage": "cm_joint_avg_3D_avg",
    "glcm_JointEnergy": "cm_energy_3D_avg",
    "glcm_JointEntropy": "cm_joint_entr_3D_avg",
    "glcm_MaximumProbability": "cm_joint_max_3D_avg",
    "glcm_SumAverage": "cm_sum_avg_3D_avg",
    "glcm_SumEntropy": "cm_sum_entr_3D_avg",
    "glcm_SumSquares": "cm_joint_var_3D_avg",
    "glrlm_GrayLevelNonUniformity": "rlm_glnu_3D_avg",
    "glrlm_GrayLevelNonUniformityNormalized": "rlm_glnu_norm_3D_avg",
    "glrlm_GrayLevelVariance": "rlm_gl_var_3D_avg",
    "glrlm_HighGrayLevelRunEmphasis": "rlm_hgre_3D_avg",
    "glrlm_LongRunEmphasis": "rlm_lre_3D_avg",
    "glrlm_LongRunHighGrayLevelEmphasis": "rlm_lrhge_3D_avg",
    "glrlm_LongRunLowGrayLevelEmphasis": "rlm_lrlge_3D_avg",
    "glrlm_LowGrayLevelRunEmphasis": "rlm_lgre_3D_avg",
    "glrlm_RunEntropy": "rlm_rl_entr_3D_avg",
    "glrlm_RunLengthNonUniformity": "rlm_rlnu_3D_avg",
    "glrlm_RunLengthNonUniformityNormalized": "rlm_rlnu_norm_3D_avg",
    "glrlm_RunPercentage": "rlm_r_perc_3D_avg",
    "glrlm_RunVariance": "rlm_rl_var_3D_avg",
    "glrlm_ShortRunEmphasis": "rlm_sre_3D_avg",
    "glrlm_ShortRunHighGrayLevelEmphasis": "rlm_srhge_3D_avg",
    "glrlm_ShortRunLowGrayLevelEmphasis": "rlm_srlge_3D_avg",
    "glszm_GrayLevelNonUniformity": "szm_glnu_3D",
    "glszm_GrayLevelNonUniformityNormalized": "szm_glnu_norm_3D",
    "glszm_GrayLevelVariance": "szm_gl_var_3D",
    "glszm_HighGrayLevelZoneEmphasis": "szm_hgze_3D",
    "glszm_LargeAreaEmphasis": "szm_lze_3D",
    "glszm_LargeAreaHighGrayLevelEmphasis": "szm_lzhge_3D",
    "glszm_LargeAreaLowGrayLevelEmphasis": "szm_lzlge_3D",
    "glszm_LowGrayLevelZoneEmphasis": "szm_lgze_3D",
    "glszm_SizeZoneNonUniformity": "szm_zsnu_3D",
    "glszm_SizeZoneNonUniformityNormalized": "szm_zsnu_norm_3D",
    "glszm_SmallAreaEmphasis": "szm_sze_3D",
    "glszm_SmallAreaHighGrayLevelEmphasis": "szm_szhge_3D",
    "glszm_SmallAreaLowGrayLevelEmphasis": "szm_szlge_3D",
    "glszm_ZoneEntropy": "szm_zs_entr_3D",
    "glszm_ZonePercentage": "szm_z_perc_3D",
    "glszm_ZoneVariance": "szm_zs_var_3D",
    "gldm_DependenceEntropy": "ngl_dc_entr_3D",
    "gldm_DependenceNonUniformity": "ngl_dcnu_3D",
    "gldm_DependenceNonUniformityNormalized": "ngl_dcnu_norm_3D",
    "gldm_DependenceVariance": "ngl_dc_var_3D",
    "gldm_GrayLevelNonUniformity": "ngl_glnu_3D",
    "gldm_GrayLevelVariance": "ngl_gl_var_3D",
    "gldm_HighGrayLevelEmphasis": "ngl_hgce_3D",
    "gldm_LargeDependenceEmphasis": "ngl_hde_3D",
    "gldm_LargeDependenceHighGrayLevelEmphasis": "ngl_hdhge_3D",
    "gldm_LargeDependenceLowGrayLevelEmphasis": "ngl_hdlge_3D",
    "gldm_LowGrayLevelEmphasis": "ngl_lgce_3D",
    "gldm_SmallDependenceEmphasis": "ngl_lde_3D",
    "gldm_SmallDependenceHighGrayLevelEmphasis": "ngl_ldhge_3D",
    "gldm_SmallDependenceLowGrayLevelEmphasis": "ngl_ldlge_3D",
    "ngtdm_Busyness": "ngt_busyness_3D",
    "ngtdm_Coarseness": "ngt_coarseness_3D",
    "ngtdm_Complexity": "ngt_complexity_3D",
    "ngtdm_Contrast": "ngt_contrast_3D",
    "ngtdm_Strength": "ngt_strength_3D",
}

# Feature -> why its value is not the consensus value. Each is also tested, to differ for just this reason.
DEFINED_OTHERWISE = {
    "firstorder_Kurtosis": "PyRadiomics does not subtract 3",
    "shape_LeastAxisLength": "PyRadiomics divides the covariance by n, IBSI by n - 1",
    "shape_MinorAxisLength": "PyRadiomics divides the covariance by n, IBSI by n - 1",
}
NOT_IN_IBSI = {
    "firstorder_TotalEnergy", "glcm_MCC", "shape_Maximum2DDiameterColumn", "shape_Maximum2DDiameterRow",
    "shape_Maximum2DDiameterSlice",
}  # fmt: skip


@pytest.fixture(scope="module")
def consensus(shared_data: Path) -> dict[str, tuple[float, float]]:
    with (shared_data / "ibsi/reference_values/ibsi_1_dig_phantom.csv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))[1:]
    return {tag: (float(value), float(tolerance)) for value, tolerance, tag in rows if value}


@pytest.fixture(scope="module")
def measured(shared_data: Path) -> dict[str, float]:
    folder = shared_data / "ibsi/digital_phantom/nifti"
    image = sitk.ReadImage(str(folder / "image/phantom.nii.gz"))
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask/mask.nii.gz"))) > 0
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0] = image.GetSpacing()
    affine[3, 3] = 1
    volume = hd.Volume(sitk.GetArrayFromImage(image).astype(np.int16), affine, coordinate_system="PATIENT")
    vector = extract(volume, mask, ExtractionSpec(ALL_FEATURES, {"binWidth": 1.0}))
    return {name.removeprefix("original_"): float(v) for name, v in zip(vector.names, vector.values, strict=True)}


def _allowed(value: float, tolerance: float) -> float:
    """Half a unit in the third significant digit, to which the consensus is published, and its tolerance."""
    return tolerance + 0.5001 * 10 ** (math.floor(math.log10(abs(value))) - 2)


def test_every_feature_is_accounted_for() -> None:
    every = {name.removeprefix("original_") for name in ALL_FEATURES}
    assert every == {*IBSI_TAGS, *DEFINED_OTHERWISE, *NOT_IN_IBSI}


@pytest.mark.parametrize("feature", IBSI_TAGS)
def test_consensus_value(feature: str, measured: dict[str, float], consensus: dict[str, tuple[float, float]]) -> None:
    value, tolerance = consensus[IBSI_TAGS[feature]]
    assert measured[feature] == pytest.approx(value, abs=_allowed(value, tolerance))


def test_kurtosis_is_not_excess_kurtosis(measured: dict[str, float], consensus: dict[str, tuple[float, float]]) -> None:
    assert measured["firstorder_Kurtosis"] - 3 == pytest.approx(consensus["stat_kurt"][0], abs=5e-4)


@pytest.mark.parametrize("axis", ["LeastAxisLength", "MinorAxisLength"])
def test_axis_lengths_differ_by_the_divisor(
    axis: str, measured: dict[str, float], consensus: dict[str, tuple[float, float]]
) -> None:
    tag = {"LeastAxisLength": "morph_pca_least_axis", "MinorAxisLength": "morph_pca_min_axis"}[axis]
    voxels = 74
    as_ibsi = measured[f"shape_{axis}"] * math.sqrt(voxels / (voxels - 1))
    assert as_ibsi == pytest.approx(consensus[tag][0], abs=_allowed(consensus[tag][0], 0))
