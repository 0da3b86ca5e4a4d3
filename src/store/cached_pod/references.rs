//! The Secrets, `ConfigMaps` and `ClusterTrustBundles` whose content a pod reads, as its spec names
//! them.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, KeyToPath, PodSpec, Volume, VolumeProjection,
};

/// The kind of an object that a pod reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// A Secret of its namespace.
    Secret,
    /// A `ConfigMap` of its namespace.
    ConfigMap,
    /// A `ClusterTrustBundle`, by its name.
    ClusterTrustBundle,
}

/// One place in a pod that names an object.
pub(super) struct Reference<'a> {
    pub(super) object: Object,
    pub(super) name: &'a str,
    /// Whether the pod starts without it.
    pub(super) is_optional: bool,
    /// Whether it is about environment variables.
    pub(super) in_environment: bool,
    /// The files of it that the pod names; empty where it takes all there are.
    pub(super) files: Vec<&'a str>,
}

impl<'a> Reference<'a> {
    fn of(object: Object, name: &'a str, optional: Option<bool>) -> Self {
        Self {
            object,
            name,
            is_optional: optional == Some(true),
            in_environment: false,
            files: Vec::new(),
        }
    }

    fn with_items(mut self, items: Option<&'a Vec<KeyToPath>>) -> Self {
        self.files = items.into_iter().flatten().map(|it| &*it.key).collect();
        self
    }

    fn in_environment(self, key: Option<&'a str>) -> Self {
        Self {
            in_environment: true,
            files: key.into_iter().collect(),
            ..self
        }
    }
}

/// The objects whose content reaches a container: by volumes, also projected ones and those of CSI
/// drivers, and by environment variables, of containers, init containers and ephemeral containers.
/// Image pull secrets are not content.
pub(super) fn references(spec: &PodSpec) -> impl Iterator<Item = Reference<'_>> {
    let volumes = spec.volumes.iter().flatten().flat_map(of_volume);
    let main = spec.containers.iter().map(|c| (&c.env, &c.env_from));
    let init = spec.init_containers.iter().flatten();
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let containers = main
        .chain(init.map(|c| (&c.env, &c.env_from)))
        .chain(ephemeral.map(|c| (&c.env, &c.env_from)));
    let environments = containers.flat_map(|(env, env_from)| {
        let each = env.iter().flatten().filter_map(of_variable);
        each.chain(env_from.iter().flatten().flat_map(of_source))
    });
    volumes
        .chain(environments)
        .filter(|reference| !reference.name.is_empty())
}

fn of_volume(volume: &Volume) -> impl Iterator<Item = Reference<'_>> {
    let secret = volume.secret.iter().filter_map(|source| {
        let name = source.secret_name.as_deref()?;
        let reference = Reference::of(Object::Secret, name, source.optional);
        Some(reference.with_items(source.items.as_ref()))
    });
    let config_map = volume.config_map.iter().map(|source| {
        Reference::of(Object::ConfigMap, &source.name, source.optional)
            .with_items(source.items.as_ref())
    });
    let projected = volume.projected.iter();
    let projected = projected.flat_map(|source| source.sources.iter().flatten());
    let mounted = volume.csi.iter();
    let mounted = mounted.filter_map(|csi| csi.node_publish_secret_ref.as_ref());
    let mounted = mounted.map(|secret| Reference::of(Object::Secret, &secret.name, None));
    let projected = projected.flat_map(of_projection);
    secret.chain(config_map).chain(projected).chain(mounted)
}

fn of_projection(source: &VolumeProjection) -> impl Iterator<Item = Reference<'_>> {
    let secret = source.secret.iter().map(|it| {
        Reference::of(Object::Secret, &it.name, it.optional).with_items(it.items.as_ref())
    });
    let config_map = source.config_map.iter().map(|it| {
        Reference::of(Object::ConfigMap, &it.name, it.optional).with_items(it.items.as_ref())
    });
    let bundle = source.cluster_trust_bundle.iter().filter_map(|it| {
        let name = it.name.as_deref()?;
        Some(Reference::of(Object::ClusterTrustBundle, name, it.optional))
    });
    secret.chain(config_map).chain(bundle)
}

fn of_variable(variable: &EnvVar) -> Option<Reference<'_>> {
    let source = variable.value_from.as_ref()?;
    let secret = source.secret_key_ref.as_ref().map(|it| {
        Reference::of(Object::Secret, &it.name, it.optional).in_environment(Some(&it.key))
    });
    let config_map = source.config_map_key_ref.as_ref().map(|it| {
        Reference::of(Object::ConfigMap, &it.name, it.optional).in_environment(Some(&it.key))
    });
    secret.or(config_map)
}

fn of_source(source: &EnvFromSource) -> impl Iterator<Item = Reference<'_>> {
    let secret = source.secret_ref.iter();
    let secret = secret.map(|it| Reference::of(Object::Secret, &it.name, it.optional));
    let config_map = source.config_map_ref.iter();
    let config_map = config_map.map(|it| Reference::of(Object::ConfigMap, &it.name, it.optional));
    secret.chain(config_map).map(|it| it.in_environment(None))
}
