//! The question of the API server, read from the body of a request.

use crate::k8s::tolerant;
use kube::core::admission::{META_API_VERSION_V1, META_KIND, Operation};
use kube::core::{GroupVersionKind, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Why a body holds no question that can be answered; the caller gets `400 Bad Request`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// Not JSON, or JSON of something else.
    #[error("the body is not an AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Another kind or version of review, as sent.
    #[error("the body is a {0} of {1}, not an AdmissionReview of admission.k8s.io/v1")]
    OtherType(String, String),
    /// A review that asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// The question in a review. Fields that the answer does not depend on are not read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<T = ReviewedObject> {
    /// The identifier that the answer repeats.
    pub uid: String,
    /// The kind of the object.
    pub kind: GroupVersionKind,
    /// The name of the object; empty where the API server makes one.
    #[serde(default)]
    pub name: String,
    /// The namespace that the author was authorized for.
    pub namespace: Option<String>,
    /// The operation.
    pub operation: Operation,
    /// The object as it is to be stored.
    pub object: Option<T>,
    /// The object as it is stored.
    pub old_object: Option<T>,
    /// Whether nothing is to be stored.
    #[serde(default)]
    pub dry_run: bool,
    /// The options of the request.
    pub options: Option<RequestOptions>,
}

/// A question whose objects are still JSON. Read, they take up many times as much memory.
pub type UnreadRequest<'a> = Request<&'a RawValue>;

/// An object under review, undecoded.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ReviewedObject {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Its spec; null if there is none.
    #[serde(default)]
    pub spec: Value,
    /// Its status; null if there is none.
    #[serde(default)]
    pub status: Value,
}

/// The options of a deletion.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestOptions {
    /// How dependents are deleted.
    pub propagation_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    kind: String,
    api_version: String,
    #[serde(borrow)]
    request: Option<Request<&'a RawValue>>,
}

/// Reads a review, and its objects.
pub fn read(body: &[u8]) -> Result<Request, ReviewError> {
    UnreadRequest::parse(body)?.read()
}

impl<'a> UnreadRequest<'a> {
    /// Takes the question out of a review.
    pub fn parse(body: &'a [u8]) -> Result<Self, ReviewError> {
        let review: Review<'_> = serde_json::from_slice(body)?;
        if (review.kind.as_str(), review.api_version.as_str()) != (META_KIND, META_API_VERSION_V1) {
            return Err(ReviewError::OtherType(review.kind, review.api_version));
        }
        review.request.ok_or(ReviewError::NoRequest)
    }

    /// Reads the objects.
    pub fn read(self) -> Result<Request, ReviewError> {
        let read = |object: Option<&RawValue>| object.map(ReviewedObject::read).transpose();
        Ok(Request {
            object: read(self.object)?,
            old_object: read(self.old_object)?,
            uid: self.uid,
            kind: self.kind,
            name: self.name,
            namespace: self.namespace,
            operation: self.operation,
            dry_run: self.dry_run,
            options: self.options,
        })
    }
}

impl ReviewedObject {
    /// Reads an object; a second time if a time in it cannot be read, and without that.
    fn read(json: &RawValue) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json.get()).or_else(|error| {
            let mut object: Value = serde_json::from_str(json.get())?;
            // Other faults stay: this way of reading would accept a field that is there twice.
            if tolerant::drop_unreadable_times(&mut object) {
                serde_json::from_value(object)
            } else {
                Err(error)
            }
        })
    }
}

impl<T> Request<T> {
    pub(super) fn is_of_kind(&self, group: &str, version: &str, kind: &str) -> bool {
        let asked = &self.kind;
        (&*asked.group, &*asked.version, &*asked.kind) == (group, version, kind)
    }
}

impl Request {
    /// The object's name, or the prefix in `generateName`.
    pub(super) fn object_name(&self) -> &str {
        let metadata = self.object.as_ref().map(|object| &object.metadata);
        let name = metadata.and_then(|it| it.name.as_deref());
        let prefix = metadata.and_then(|it| it.generate_name.as_deref());
        let names = [Some(self.name.as_str()), name, prefix];
        let mut names = names.into_iter().flatten();
        names.find(|name| !name.is_empty()).unwrap_or_default()
    }

    /// Whether an UPDATE leaves the spec as it was.
    pub(super) fn keeps_spec(&self) -> bool {
        match (&self.operation, &self.object, &self.old_object) {
            (Operation::Update, Some(new), Some(old)) => new.spec == old.spec,
            _ => false,
        }
    }
}
