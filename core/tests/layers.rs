//! Keeps the layers of `ARCHITECTURE.md`: a module imports only from rows below its own, never sideways.
//!
//! Reads the sources as text: every `crate::…` path outside comments counts, in tests too, and a name that
//! `lib.rs` re-exports counts as the module it comes from.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// From the top. `error` is the floor of row 0: its neighbours may stand on it.
const ROWS: [(u32, &[&str]); 10] = [
    (9, &["sdk"]),
    (8, &["mesh"]),
    (7, &["plugin"]),
    (6, &["bus", "rpc", "stream", "queue", "kv", "cache"]),
    (5, &["ledger", "session"]),
    (4, &["journal", "shm"]),
    (3, &["storage"]),
    (2, &["os", "wire"]),
    (1, &["sync"]),
    (0, &["error", "name", "clock", "stats"]),
];
const FLOOR: &str = "error";

/// Where `unsafe` may stand: a module, or one file of it.
const UNSAFE: [&str; 4] = ["sync", "os", "shm", "journal/map.rs"];

#[test]
fn no_import_points_up_or_sideways() {
    let sources = Sources::read();
    let mut faults = Vec::new();
    for (file, text) in &sources.files {
        let module = module_of(file);
        let Some(row) = row_of(module) else {
            faults.push(format!("core/src/{file}: module `{module}` is in no row"));
            continue;
        };
        for (line, name) in imports(text) {
            let target = sources.exports.get(name.as_str()).map_or(name.as_str(), String::as_str);
            let Some(below) = row_of(target) else {
                faults.push(format!(
                    "core/src/{file}:{line}: `crate::{name}` is neither a module nor re-exported"
                ));
                continue;
            };
            let stands_on_floor = target == FLOOR && module != FLOOR;
            if target != module && below >= row && !stands_on_floor {
                let way = if below == row { "sideways" } else { "up" };
                faults.push(format!(
                    "core/src/{file}:{line}: `{module}` (row {row}) imports {way} from `{target}` (row {below})"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_stays_where_it_is_argued() {
    let mut faults = Vec::new();
    for (file, text) in &Sources::read().files {
        let module = module_of(file);
        if UNSAFE.contains(&module) || UNSAFE.contains(&file.as_str()) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            if words(line).any(|word| word == "unsafe") {
                faults.push(format!("core/src/{file}:{}: `unsafe` outside {UNSAFE:?}", index + 1));
            }
        }
        let parts = UNSAFE.iter().any(|allowed| allowed.split('/').next() == Some(module));
        let is_root = *file == format!("{module}.rs") || *file == format!("{module}/mod.rs");
        if is_root && !parts && !text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("core/src/{file}: a module opens with #![forbid(unsafe_code)]"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_readers_of_this_test_see_what_they_should() {
    let text = strip_comments(
        "use crate::{\n    error::{Error, Result}, // crate::not_this\n    name::Name,\n};\nlet x = crate::sdk::y();\n\
         //! crate::nor_this\n#[macro_use]\npub(crate) use crate::wire as w; other_crate::nor::this",
    );
    let found: Vec<_> = imports(&text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["error", "name", "sdk", "wire"]);
    assert_eq!(words("let unsafely = unsafe { x };").collect::<Vec<_>>(), ["let", "unsafely", "unsafe", "x"]);
    let exports = exports(
        "pub use error::{Error, Result};\npub use wire::Message;\npub use bus::{\n  OnSlow as Slow,\n};",
    );
    assert_eq!(exports["Result"], "error");
    assert_eq!(exports["Message"], "wire");
    assert_eq!(exports["Slow"], "bus");
}

struct Sources {
    /// By path below `core/src`, without comments; `lib.rs` apart.
    files: BTreeMap<String, String>,
    /// What `lib.rs` re-exports, with the module it comes from.
    exports: BTreeMap<String, String>,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        let mut open: Vec<PathBuf> = vec![root.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).expect("the crate's sources") {
                let path = entry.expect("a directory entry").path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name =
                        path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                    files.insert(name, strip_comments(&fs::read_to_string(path).expect("a source file")));
                }
            }
        }
        let exports = exports(&files.remove("lib.rs").expect("lib.rs"));
        Self { files, exports }
    }
}

fn module_of(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

fn row_of(module: &str) -> Option<u32> {
    ROWS.iter().find(|(_, modules)| modules.contains(&module)).map(|(row, _)| *row)
}

fn strip_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The first name of each path that begins with `crate::`, and its line.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, matched) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        found.extend(first_names(&text[at + matched.len()..]).into_iter().map(|name| (line, name)));
    }
    found
}

/// `error::{Error, Result}` begins with `error`; `{error::Error, name}` with `error` and `name`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return words(path).next().map(str::to_owned).into_iter().collect();
    };
    let (mut depth, mut item, mut names) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(words(&std::mem::take(&mut item)).next().map(str::to_owned)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    names.extend(words(&item).next().map(str::to_owned));
    names
}

/// The names that `pub use module::…;` statements bring to the root.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in lib.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let mut names = words(path);
        let module = names.next().unwrap_or("");
        for item in path.split([',', '{', '}']) {
            if let Some(name) = words(item).last() {
                exports.insert(name.to_owned(), module.to_owned());
            }
        }
    }
    exports
}
