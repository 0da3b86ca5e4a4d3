//! The resources that are watched.

/// A watched resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watched {
    Namespaces,
    Pkis,
    Policies,
    Pods,
    Secrets,
}

impl Watched {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Namespaces,
        Self::Pkis,
        Self::Policies,
        Self::Pods,
        Self::Secrets,
    ];
    /// Without these nothing can be judged.
    pub(super) const NEEDED: [Self; 3] = [Self::Policies, Self::Namespaces, Self::Pkis];

    /// As the API server calls it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Pkis => "pkis",
            Self::Policies => "pkipolicies",
            Self::Pods => "pods",
            Self::Secrets => "secrets",
        }
    }
}
