//! Kinds that are asked, not stored.

/// A kind that is asked, not stored: a create is answered with its status filled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    /// Asked below a namespace.
    pub namespaced: bool,
    /// Name in OpenAPI.
    pub schema_name: &'static str,
}

/// The reviews that are served.
pub static REVIEWS: &[Review] = &[
    Review {
        group: "",
        version: "v1",
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        namespaced: true,
        schema_name: "io.k8s.api.core.v1.Binding",
    },
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        namespaced: false,
        schema_name: "io.k8s.api.authentication.v1.SelfSubjectReview",
    },
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        namespaced: false,
        schema_name: "io.k8s.api.authentication.v1.TokenReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        schema_name: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        namespaced: false,
        schema_name: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        namespaced: false,
        schema_name: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        namespaced: false,
        schema_name: "io.k8s.api.authorization.v1.SubjectAccessReview",
    },
];

/// The review served under a group, version and plural.
pub fn find_review(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    REVIEWS
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}
