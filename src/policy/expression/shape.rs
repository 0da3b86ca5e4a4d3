//! The maximum size of the values that an expression sees.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fields that are maps with any keys.
const OPEN_MAPS: [&str; 2] = ["labels", "annotations"];
/// Number of bytes that are copied or compared in one step.
const BYTES_A_STEP: u64 = 128;

/// The maximum size of a value: if its type is not known, for each type that it may have.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    /// Length of a text.
    pub(super) bytes: u64,
    /// Number of elements of a list, or of entries of a map.
    pub(super) count: u64,
    /// The largest element of a list, or value of a map.
    element: Option<Arc<Shape>>,
    /// Length of the longest key of a map.
    key_bytes: u64,
    /// The fields of an object like `pki.spec`.
    fields: Option<Arc<BTreeMap<String, Shape>>>,
}

impl Shape {
    pub(super) fn text(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    pub(super) fn list(count: u64, element: Self) -> Self {
        Self {
            count,
            element: Some(Arc::new(element)),
            ..Self::default()
        }
    }

    pub(super) fn map(count: u64, key_bytes: u64, value: Self) -> Self {
        Self {
            key_bytes,
            ..Self::list(count, value)
        }
    }

    pub(super) fn of_fields(fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields: BTreeMap<_, _> = fields.into_iter().collect();
        Self {
            count: fields.len() as u64,
            fields: Some(Arc::new(fields)),
            ..Self::default()
        }
    }

    /// The shape of a fact.
    pub(super) fn of(fact: &Value) -> Self {
        match fact {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::default(),
            Value::String(text) => Self::text(text.len() as u64),
            Value::Array(facts) => Self::list(facts.len() as u64, Self::largest(facts.iter())),
            Value::Object(facts) => {
                let fields = facts.iter().map(|(name, fact)| {
                    let shape = match fact {
                        Value::Object(entries) if OPEN_MAPS.contains(&name.as_str()) => {
                            Self::of_entries(entries)
                        }
                        fact => Self::of(fact),
                    };
                    (name.clone(), shape)
                });
                Self::of_fields(fields)
            }
        }
    }

    fn of_entries(entries: &Map<String, Value>) -> Self {
        let longest = entries.keys().map(|key| key.len() as u64).max();
        let largest = Self::largest(entries.values());
        Self::map(entries.len() as u64, longest.unwrap_or_default(), largest)
    }

    fn largest<'a>(facts: impl Iterator<Item = &'a Value>) -> Self {
        facts.fold(Self::default(), |largest, fact| largest.or(&Self::of(fact)))
    }

    /// The shape of a value that is one or the other.
    pub(super) fn or(mut self, other: &Self) -> Self {
        self.bytes = self.bytes.max(other.bytes);
        self.count = self.count.max(other.count);
        self.key_bytes = self.key_bytes.max(other.key_bytes);
        self.element = match (self.element.take(), &other.element) {
            (Some(one), Some(another)) if !Arc::ptr_eq(&one, another) => {
                Some(Arc::new(Arc::unwrap_or_clone(one).or(another)))
            }
            (one, another) => one.or_else(|| another.clone()),
        };
        self.fields = match (self.fields.take(), &other.fields) {
            (Some(one), Some(another)) if !Arc::ptr_eq(&one, another) => {
                let mut fields = Arc::unwrap_or_clone(one);
                for (name, shape) in another.iter() {
                    let known = fields.remove(name).unwrap_or_default();
                    fields.insert(name.clone(), known.or(shape));
                }
                Some(Arc::new(fields))
            }
            (one, another) => one.or_else(|| another.clone()),
        };
        self
    }

    /// The shape of two texts or lists, one after the other.
    pub(super) fn and(self, other: &Self) -> Self {
        let bytes = self.bytes.saturating_add(other.bytes);
        let count = self.count.saturating_add(other.count);
        Self {
            bytes,
            count,
            ..self.or(other)
        }
    }

    pub(super) fn field(&self, name: &str) -> Self {
        let known = self.fields.as_ref().and_then(|fields| fields.get(name));
        let any = self.element.as_deref();
        match (known, any) {
            (Some(known), Some(any)) => known.clone().or(any),
            (Some(shape), None) | (None, Some(shape)) => shape.clone(),
            (None, None) => Self::default(),
        }
    }

    /// An element of a list, or a value of a map, whatever its key.
    pub(super) fn any(&self) -> Self {
        let element = self.element.as_deref().cloned().unwrap_or_default();
        let fields = self.fields.iter().flat_map(|fields| fields.values());
        fields.fold(element, Self::or)
    }

    /// The variable of a loop: an element of a list, a key of a map.
    pub(super) fn item(&self) -> Self {
        let keys = self.fields.iter().flat_map(|fields| fields.keys());
        let longest = keys.map(|key| key.len() as u64).max().unwrap_or_default();
        let key = Self::text(longest.max(self.key_bytes));
        match &self.element {
            Some(element) => key.or(element),
            None => key,
        }
    }

    pub(super) fn weight(&self) -> u64 {
        let element = self.element.as_ref().map_or(0, |element| element.weight());
        // Each key is copied and hashed.
        let entry = match self.key_bytes {
            0 => element,
            bytes => (4 + bytes / BYTES_A_STEP).saturating_add(element),
        };
        let entries = match &self.element {
            Some(_) => self.count.saturating_mul(entry),
            None => 0,
        };
        let fields = self.fields.iter().flat_map(|fields| fields.values());
        let fields = fields.fold(0_u64, |sum, field| {
            sum.saturating_add(4).saturating_add(field.weight())
        });
        1_u64
            .saturating_add(self.bytes.div_ceil(BYTES_A_STEP))
            .saturating_add(entries)
            .saturating_add(fields)
    }
}
