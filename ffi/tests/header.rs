//! `include/flowmesh.h` is what the sources say. `FLOWMESH_WRITE=1` writes it instead of comparing.

use std::{env, fs, path::Path};

#[test]
fn the_committed_header_is_fresh() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("../include/flowmesh.h");
    let generated = generate(here);
    if env::var_os("FLOWMESH_WRITE").is_some() {
        fs::write(&path, generated).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap();
    let differs = committed.lines().zip(generated.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or_else(|| committed.lines().count().min(generated.lines().count()));
    assert!(
        committed == generated,
        "include/flowmesh.h is stale from line {}: run `ffi/check-header.sh --write`\n  committed: {}\n  generated: {}",
        line + 1,
        committed.lines().nth(line).unwrap_or("(end)"),
        generated.lines().nth(line).unwrap_or("(end)"),
    );
}

fn generate(here: &Path) -> String {
    let mut config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    config.after_includes = config.after_includes.map(|text| {
        text.replace("@MAJOR@", env!("CARGO_PKG_VERSION_MAJOR"))
            .replace("@MINOR@", env!("CARGO_PKG_VERSION_MINOR"))
            .replace("@PATCH@", env!("CARGO_PKG_VERSION_PATCH"))
    });
    let mut written = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(here.join("src/lib.rs"))
        .generate()
        .unwrap()
        .write(&mut written);
    edit(&String::from_utf8(written).unwrap())
}

/// What cbindgen cannot do: chapters, lists of errors in plain words, short comments on one line, plain enums,
/// statuses that must be looked at.
fn edit(header: &str) -> String {
    let mut edited = String::new();
    let mut comment: Vec<&str> = Vec::new();
    let mut lines = header.trim_start().lines();
    while let Some(line) = lines.next() {
        // Constants of plain integers: their width is that of the field that holds them, and they need no type.
        if line.starts_with("enum ") {
            edited.push_str(line);
            edited.push_str(" {\n");
            lines.find(|line| line.trim() == "{").expect("an enum has a body");
            continue;
        }
        if line == "#ifndef __cplusplus" {
            lines.find(|line| *line == "#endif // __cplusplus").expect("an enum's typedef ends");
            continue;
        }
        if line.trim_start() == "/**" || !comment.is_empty() {
            comment.push(line);
            if line.trim_start() == "*/" {
                write_comment(&comment, &mut edited);
                comment.clear();
            }
            continue;
        }
        // A free or a close has nothing to report that matters when it is written as it should be.
        let may_be_ignored =
            line.contains("_free") || line.contains("_close") || line.contains("flowmesh_handler_error");
        if line.starts_with("flowmesh_status flowmesh_") && !may_be_ignored {
            edited.push_str("FLOWMESH_MUST_USE\n");
        }
        edited.push_str(line);
        edited.push('\n');
    }
    edited
}

fn write_comment(comment: &[&str], edited: &mut String) {
    let text = |line: &str| line.trim_start().trim_start_matches('*').trim_start().to_owned();
    let mut body = &comment[1..comment.len() - 1];
    if let Some(title) = body.first().and_then(|line| text(line).strip_prefix("§ ").map(str::to_owned)) {
        let rule = "=".repeat(106 - title.len());
        edited.push_str(&format!("/* {title} {rule} */\n\n"));
        body = &body[2..];
    }
    if let [line] = body {
        let indent = &comment[0][..comment[0].len() - 3];
        edited.push_str(&format!("{indent}/** {} */\n", text(line)));
        return;
    }
    edited.push_str(comment[0]);
    edited.push('\n');
    for line in body {
        match text(line).as_str() {
            "# Errors" => edited.push_str(" * Errors:\n"),
            "" => edited.push_str(" *\n"),
            _ => {
                edited.push_str(line);
                edited.push('\n');
            }
        }
    }
    edited.push_str(comment[comment.len() - 1]);
    edited.push('\n');
}
