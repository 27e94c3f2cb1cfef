"""Select features with GL-RFE inside a scikit-learn pipeline. Needs lungstage[training].

    python examples/select_features.py

The table is public: Breast Cancer Wisconsin (569 patients, 30 features), which scikit-learn contains.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import lungstage

X, y = load_breast_cancer(return_X_y=True, as_frame=True)

# Gradients depend on the scale of a feature, so scale first. The selection is a step of the pipeline: each fold
# selects its own features, and never sees the patients on which it is scored.
pipeline = Pipeline(
    [
        ("scale", StandardScaler().set_output(transform="pandas")),
        ("select", lungstage.GradientLossRFE(n_features_to_select=5, random_state=0)),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
scores = cross_val_score(pipeline, X, y, cv=3, scoring="roc_auc")
print(f"AUC with 5 of {X.shape[1]} features: {scores.mean():.3f} (folds: {scores.round(3)})")

pipeline.fit(X, y)
for name in pipeline["select"].get_feature_names_out():
    print(f"  {name}")
