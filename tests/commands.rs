//! `fetch` and `diff` as a user runs them.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
};

use crate::space::Space;

/// A server on this machine that gives every request the same file.
fn serve(body: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body);
        }
    });
    port
}

/// SHA-256 of `a model`.
const DIGEST: &str = "1a3c1aadc6fd5ffd1ca2f1ef4a4dd2dbcac6b50ec5c5fca5fcb4ca9bd9a4b6dc";

fn pipeline(url: &str, digest: &str) -> String {
    format!(
        "version = 1\n[models.clip]\npath = \"models/clip.pt\"\nfetch = {{ url = \"{url}\", sha256 = \"{digest}\" }}\n"
    )
}

#[test]
fn fetch_brings_what_is_missing_and_refuses_what_is_wrong() {
    let space = Space::new();
    let port = serve(b"a model");
    let url = format!("http://127.0.0.1:{port}/clip.pt");
    // Nothing of the pipeline needs to be there, not even a node.
    space.write("wrong.toml", &pipeline(&url, DIGEST));
    let ran = space.run(&["fetch", "wrong.toml"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("models.clip"), "{}", ran.stderr);
    assert!(!space.path().join("models/clip.pt").exists());
    // The message says what was found instead.
    let found = ran
        .stderr
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|word| word.len() == 64 && *word != DIGEST)
        .unwrap()
        .to_owned();
    space.write("right.toml", &pipeline(&url, &found));
    let ran = space.run(&["fetch", "right.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("models.clip: 1 file"), "{}", ran.stdout);
    assert_eq!(
        std::fs::read(space.path().join("models/clip.pt")).unwrap(),
        b"a model"
    );
    let again = space.run(&["fetch", "right.toml"]);
    assert!(again.stdout.contains("0 of them new"), "{}", again.stdout);
    let by_hand = space.run(&["fetch", "right.toml", "--print"]);
    assert!(
        by_hand.stdout.contains(&url) && by_hand.stdout.contains(&found),
        "{}",
        by_hand.stdout
    );
    let unknown = space.run(&["fetch", "right.toml", "models.other"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.stderr.contains("hint: there are models.clip"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn a_missing_model_that_can_be_fetched_says_so() {
    let space = Space::new();
    let text = pipeline("https://example.org/clip.pt", DIGEST)
        + "[nodes.texts]\nkind = \"clip_encode\"\nmodel = \"clip\"\nclasses = [\"cat\"]\nprompts = \"{{ class }}\"\n";
    space.write("p.toml", &text);
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr.contains("`runner fetch p.toml` downloads it"),
        "{}",
        ran.stderr
    );
    let bad = text.replace("https://", "ftp://");
    space.write("bad.toml", &bad);
    let ran = space.run(&["fetch", "bad.toml"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("bad.toml:4"), "{}", ran.stderr);
}

#[test]
fn diff_says_what_two_runs_differ_in() {
    let space = Space::new();
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines/demo");
    let text = format!(
        "version = 1\nname = \"p\"\n[params]\nwords = \"a photo of a\"\n\
         [data.pics]\nformat = \"cifar10\"\npath = \"{0}/cifar-10-batches-bin\"\nlimit = 200\n\
         [models.clip]\npath = \"{0}/clip\"\n\
         [nodes.images]\nkind = \"clip_encode\"\nmodel = \"clip\"\nimages = \"pics.test\"\n\
         [nodes.texts]\nkind = \"clip_encode\"\nmodel = \"clip\"\nclasses = \"pics\"\nprompts = \"${{words}} {{{{ class }}}}\"\n\
         [nodes.eval]\nkind = \"zeroshot_eval\"\nimages = \"images\"\nclassifier = \"texts\"\n\
         [tables.accuracy]\nvalue = \"eval.top1\"\n",
        demo.display()
    );
    space.write("p.toml", &text);
    let lonely = space.run(&["diff"]);
    assert_eq!(lonely.code, 2);
    assert!(
        lonely.stderr.contains("hint: `runner log` lists them"),
        "{}",
        lonely.stderr
    );
    assert_eq!(space.run(&["exec", "p.toml"]).code, 0);
    assert_eq!(
        space
            .run(&["exec", "p.toml", "-s", "words=no picture of any"])
            .code,
        0
    );
    let ran = space.run(&["diff", "--html", "diff.html"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in [
        "prompts",
        "no picture of any {{ class }}",
        "texts",
        "eval",
        "accuracy",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let page = std::fs::read_to_string(space.path().join("diff.html")).unwrap();
    assert!(
        page.contains("no picture of any") && page.trim_end().ends_with("</html>"),
        "{}",
        &page[page.len() - 80..]
    );
    let json = space.run(&["diff", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(value["equal"], false);
    assert_eq!(value["same_nodes"], 1);
}
