//! Holds the layers of `src/` (see the crate docs in `src/lib.rs`): an import points to a lower
//! layer, and no two files import each other. Tests inside the crate may import anything.

#![allow(
    clippy::unwrap_used,
    reason = "a failure to read the sources fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The layers, the lowest first. Modules on one row do not import each other.
const ROWS: [&[&str]; 11] = [
    &["util", "guide"],
    &["api"],
    &["k8s"],
    &["policy"],
    &["model"],
    &["store"],
    &["observability"],
    &["events"],
    &["controllers", "webhook"],
    &["cli"],
    &["operator", "main", "bin", "lib"],
];

/// The layer whose folders are each on their own.
const APART: &str = "controllers";

/// An import, as `use` or as a path in the code.
#[derive(Debug)]
struct Import {
    file: PathBuf,
    line: usize,
    from: Vec<String>,
    to: Vec<String>,
}

impl Import {
    fn says(&self, problem: &str) -> String {
        let (file, line) = (self.file.display(), self.line);
        format!("{file}:{line}: {} {problem}", self.to.join("::"))
    }
}

#[test]
fn imports_point_to_lower_layers() {
    let imports = imports(Path::new("src"));
    assert!(imports.len() > 500, "the sources are read");
    let wrong: Vec<_> = imports.iter().filter_map(wrong_way).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_layer_has_a_row() {
    let rows: BTreeSet<_> = ROWS.into_iter().flatten().copied().collect();
    let entries = fs::read_dir(root("src")).unwrap();
    let names: BTreeSet<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        rows
    );
    assert!(
        names.len() <= 16,
        "a reader takes the layers in at a glance"
    );
}

#[test]
fn no_two_files_import_each_other() {
    let mut wrong = Vec::new();
    for folder in ["src", "certs/src"] {
        let imports = imports(Path::new(folder));
        let mut pairs = BTreeMap::new();
        for import in &imports {
            pairs.entry((&import.from, &import.to)).or_insert(import);
        }
        for ((from, to), import) in &pairs {
            // A module and the files in its folder are one thing.
            let is_family = from.starts_with(to) || to.starts_with(from);
            if !is_family && pairs.contains_key(&(*to, *from)) {
                wrong.push(import.says(&format!("imports {} too", from.join("::"))));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A search for a type finds one.
#[test]
fn public_type_names_are_unique() {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for file in sources(&root("src")) {
        let parsed = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
        for item in parsed.items {
            let (visibility, name) = match item {
                Item::Enum(it) => (it.vis, it.ident),
                Item::Struct(it) => (it.vis, it.ident),
                Item::Trait(it) => (it.vis, it.ident),
                Item::Type(it) => (it.vis, it.ident),
                _ => continue,
            };
            if matches!(visibility, Visibility::Public(_)) {
                let place = format!("{}:{}", file.display(), name.span().start().line);
                found.entry(name.to_string()).or_default().push(place);
            }
        }
    }
    assert!(found.len() > 100, "the sources are read");
    found.retain(|_, places| places.len() > 1);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn comments_fit_into_a_hundred_columns() {
    let mut wrong = Vec::new();
    for file in ["src", "certs/src", "tests"].iter().flat_map(all_sources) {
        for (index, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let text = line.trim_start();
            // A link cannot be broken.
            let is_link = text.contains("]: http");
            if text.starts_with("//") && !is_link && line.chars().count() > 100 {
                wrong.push(format!("{}:{}", file.display(), index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A file outside tests is read on a few screens, and a function on one.
#[test]
fn files_and_functions_are_short() {
    const MAX_FILE_LINES: usize = 400;
    const MAX_FUNCTION_LINES: usize = 60;
    let mut wrong = Vec::new();
    for file in ["src", "certs/src"]
        .map(root)
        .iter()
        .flat_map(|it| sources(it))
    {
        let text = fs::read_to_string(&file).unwrap();
        if text.lines().count() > MAX_FILE_LINES {
            wrong.push(format!("{}: over {MAX_FILE_LINES} lines", file.display()));
        }
        let mut functions = Functions::default();
        functions.visit_file(&syn::parse_file(&text).unwrap());
        for (name, line, lines) in functions.0 {
            if lines > MAX_FUNCTION_LINES {
                let file = file.display();
                wrong.push(format!("{file}:{line}: {name} has {lines} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The functions outside tests: name, first line, number of lines.
#[derive(Default)]
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn add(&mut self, name: &syn::Ident, block: &syn::Block) {
        let (first, last) = (name.span().start().line, block.span().end().line);
        self.0.push((name.to_string(), first, last + 1 - first));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
}

/// A page or a chart that names a source names one that exists.
#[test]
fn pages_and_charts_name_sources_that_exist() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut files = Vec::new();
    for folder in ["src/guide", "charts", ".ci"].map(root) {
        collect(&folder, &mut files);
    }
    files.extend(["README.md", "CONTRIBUTING.md", "Dockerfile"].map(root));
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let words = text.split(|c| !is_of_path(c));
        for word in words.map(|word| word.trim_end_matches('.')) {
            let is_source = ["src/", "tests/", "certs/"]
                .iter()
                .any(|it| word.starts_with(it));
            if is_source && Path::new(word).extension().is_some_and(|it| it == "rs") {
                count += 1;
                if !root(word).exists() {
                    wrong.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    assert!(count > 5, "the pages are read");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// All files of a folder, at any depth.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Words that only this project used, and a reader had to learn.
#[test]
fn names_are_words_of_the_field() {
    const PRIVATE: [&str; 14] = [
        "contests",
        "distrust",
        "distrusted",
        "foreseen",
        "insistent",
        "lament",
        "lanes",
        "mended",
        "misled",
        "outlook",
        "parting",
        "tally",
        "truce",
        "wishes",
    ];
    let mut wrong = Vec::new();
    for file in ["src", "certs/src"].iter().flat_map(all_sources) {
        for (index, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let line = line.to_lowercase();
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            if let Some(word) = words.find(|word| PRIVATE.contains(word)) {
                wrong.push(format!("{}:{}: {word}", file.display(), index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_import_is_found() {
    let import = |from: &str, to: &str| Import {
        file: "src/x.rs".into(),
        line: 1,
        from: from.split("::").map(str::to_owned).collect(),
        to: to.split("::").map(str::to_owned).collect(),
    };
    for (from, to, is_wrong) in [
        ("policy::names", "api", false),
        ("policy::names", "policy::key", false),
        ("api", "policy", true),
        ("store::claims", "controllers::pki", true),
        ("controllers::pki::plan", "controllers::pki::act", false),
        ("controllers::pki", "controllers::ca", true),
        ("webhook::review", "controllers::ca", true),
        ("controllers::ca", "webhook::server", true),
        ("operator", "webhook::server", false),
    ] {
        assert_eq!(
            wrong_way(&import(from, to)).is_some(),
            is_wrong,
            "{from} {to}"
        );
    }
}

fn wrong_way(import: &Import) -> Option<String> {
    let (from, to) = (&import.from, &import.to);
    let is_same = match (&from[..], &to[..]) {
        ([a, from, ..], [b, to, ..]) if a == APART && b == APART => from == to,
        _ => from[0] == to[0],
    };
    let is_down = row(&to[0]) < row(&from[0]);
    (!is_same && !is_down).then(|| import.says(&format!("is not below {}", from.join("::"))))
}

fn row(layer: &str) -> usize {
    let row = ROWS.iter().position(|row| row.contains(&layer));
    row.unwrap_or_else(|| panic!("layer {layer} has no row"))
}

fn root(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// All imports between the files of a crate, except those of its tests.
fn imports(folder: &Path) -> Vec<Import> {
    let modules: BTreeMap<_, _> = sources(&root("").join(folder))
        .into_iter()
        .map(|file| (module(&file, &root("").join(folder)), file))
        .collect();
    let known: BTreeSet<_> = modules.keys().cloned().collect();
    let mut imports = Vec::new();
    for (from, file) in &modules {
        let text = fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap();
        let mut reader = Reader {
            inside: vec![from.clone()],
            known: &known,
            found: Vec::new(),
        };
        reader.visit_file(&parsed);
        let file = file.strip_prefix(root("")).unwrap();
        imports.extend(reader.found.into_iter().map(|(line, to)| Import {
            file: file.to_owned(),
            line,
            from: from.clone(),
            to,
        }));
    }
    imports
}

fn all_sources(folder: &&str) -> Vec<PathBuf> {
    files(&root(folder), true)
}

/// The files with code, without those that only hold tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    files(folder, false)
}

fn files(folder: &Path, with_tests: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy();
        if name == "target" || name == "tests" && !with_tests {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, with_tests));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found
}

/// The module of a file, as `["store", "claims"]`.
fn module(file: &Path, folder: &Path) -> Vec<String> {
    let path = file.strip_prefix(folder).unwrap().with_extension("");
    let mut names: Vec<_> = path
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

/// Collects the modules that a file names, each with the line.
struct Reader<'a> {
    /// The module, and the inline modules around what is read now.
    inside: Vec<Vec<String>>,
    known: &'a BTreeSet<Vec<String>>,
    found: Vec<(usize, Vec<String>)>,
}

impl Reader<'_> {
    fn add(&mut self, line: usize, path: &[String]) {
        let Some(path) = self.absolute(path) else {
            return;
        };
        let module = (1..=path.len())
            .rev()
            .map(|length| &path[..length])
            .find(|prefix| self.known.contains(*prefix));
        if let Some(module) = module.filter(|module| *module != self.inside[0]) {
            self.found.push((line, module.to_vec()));
        }
    }

    /// The path from the root of the crate; `None` for what is of other crates.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut here = self.inside.last().expect("a file has a module").clone();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([here, path[1..].to_vec()].concat()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                here.truncate(here.len().checked_sub(ups)?);
                Some([here, path[ups..].to_vec()].concat())
            }
            child => {
                here.push(child.to_owned());
                self.known
                    .contains(&here)
                    .then(|| [here, path[1..].to_vec()].concat())
            }
        }
    }

    fn add_tree(&mut self, line: usize, before: &[String], tree: &UseTree) {
        let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(line, &with(&path.ident), &path.tree),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(tree.span().start().line, before, tree);
                }
            }
            UseTree::Name(name) if name.ident == "self" => self.add(line, before),
            UseTree::Name(name) => self.add(line, &with(&name.ident)),
            UseTree::Rename(name) => self.add(line, &with(&name.ident)),
            UseTree::Glob(_) => self.add(line, before),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_test(&module.attrs) {
            return;
        }
        let inner = [
            &self.inside.last().expect("a file has a module")[..],
            &[module.ident.to_string()],
        ]
        .concat();
        self.inside.push(inner);
        visit::visit_item_mod(self, module);
        self.inside.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.add_tree(item.span().start().line, &[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.add(path.span().start().line, &names);
        visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }
}

/// Whether an item is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|cfg| cfg.is_ident("test"))
    })
}
