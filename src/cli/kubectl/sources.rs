//! Reads the files that are named on the command line.

use crate::util::text;
use crate::util::yaml::MAX_FILE_BYTES;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The content of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As it was named; `-` for standard input.
    pub name: String,
    /// Its content, or the beginning of it if that is too much.
    pub bytes: Vec<u8>,
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name}: {source}")]
pub struct SourceError {
    name: String,
    source: io::Error,
}

/// Reads these files, and what is in these directories, in order; `-` is standard input.
pub fn read(paths: &[PathBuf], is_recursive: bool) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    for path in paths {
        read_path(path, is_recursive, &mut sources)?;
    }
    Ok(sources)
}

fn read_path(
    path: &Path,
    is_recursive: bool,
    sources: &mut Vec<Source>,
) -> Result<(), SourceError> {
    let name = path.display().to_string();
    let named = |source| SourceError {
        name: text::line(&name),
        source,
    };
    if path == Path::new("-") {
        let bytes = read_some(io::stdin().lock()).map_err(named)?;
        sources.push(Source { name, bytes });
    } else if path.is_dir() {
        for file in manifests_in(path, is_recursive).map_err(named)? {
            read_path(&file, is_recursive, sources)?;
        }
    } else {
        let bytes = File::open(path).and_then(read_some).map_err(named)?;
        sources.push(Source { name, bytes });
    }
    Ok(())
}

/// Reads one byte more than the limit, which shows that there is more.
fn read_some(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let max = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    file.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files of a directory that kubectl would apply, by name. Linked directories are not followed.
fn manifests_in(directory: &Path, is_recursive: bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_wanted = if entry.file_type()?.is_dir() {
            is_recursive
        } else {
            is_manifest(&entry.path()) && !entry.path().is_dir()
        };
        if is_wanted {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file is YAML or JSON by its name.
pub fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed when the test is over.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("kubectl-pki-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("sub")).unwrap();
            Self(path)
        }

        fn names(&self, is_recursive: bool) -> Vec<String> {
            let sources = read(std::slice::from_ref(&self.0), is_recursive).unwrap();
            let prefix = format!("{}/", self.0.display());
            sources
                .iter()
                .map(|source| source.name.replace(&prefix, ""))
                .collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn of_a_directory_the_manifests_are_read_in_order() {
        let scratch = Scratch::new("directory");
        for name in ["b.yaml", "a.json", "c.yml", "README.md", "sub/d.yaml"] {
            fs::write(scratch.0.join(name), name).unwrap();
        }
        assert_eq!(scratch.names(false), ["a.json", "b.yaml", "c.yml"]);
        assert_eq!(
            scratch.names(true),
            ["a.json", "b.yaml", "c.yml", "sub/d.yaml"]
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(&["no/such/file.yaml".into()], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read no/such/file.yaml: No such file or directory (os error 2)"
        );
    }
}
