//! Servers that lie, and secrets that must show up nowhere.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use super::{Mate, all, files};

/// What a server has been sent so far.
type Heard = Arc<Mutex<Vec<String>>>;

/// A server that answers every request as `answer` says, given its number.
fn server(answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
            thread::spawn(move || serve(&stream.unwrap(), &told, &answer(i)));
        }
    });
    (address, heard)
}

/// Reads one request and gives the answer. Whoever asked may be gone by then.
fn serve(stream: &TcpStream, told: &Mutex<Vec<String>>, answer: &[u8]) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    told.lock().unwrap().push(head);
    let _ = (&*stream).write_all(answer);
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The wrong answers, in turn.
fn wrong(i: usize) -> Vec<u8> {
    match i % 9 {
        0 => http(
            "200 OK",
            "Content-Type: text/html\r\n",
            b"<html>please log in</html>",
        ),
        1 => http("503 Slow Down", "", b""),
        2 => http("200 OK", "", &vec![0xa5; 100_000]),
        3 => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec(),
        4 => b"\x00\xff not http at all".to_vec(),
        5 => http("403 Forbidden", "", b"no"),
        6 => http("302 Found", "Location: /elsewhere\r\n", b""),
        7 => http(
            "207 Multi-Status",
            "Content-Type: text/xml\r\n",
            b"<a><b></a>",
        ),
        _ => http(
            "200 OK",
            "Content-Encoding: gzip\r\n",
            b"\x1f\x8b\x08nonsense",
        ),
    }
}

#[test]
fn a_server_that_lies_in_every_way_makes_no_run_fail_and_no_result_wrong() {
    let alone = Mate::new("eve", "nowhere/at/all");
    alone.exec(&[]);
    let right = alone.export("last");
    for start in 0..9 {
        let (address, heard) = server(move |i| wrong(i + start));
        let mate = Mate::new("ana", &format!("http://{address}/cache"));
        let (ran, happened) = mate.exec(&[]);
        assert_eq!(ran.code, 0, "{start}: {}", ran.stderr);
        all(&happened, "ran");
        assert_eq!(mate.export("last"), right, "{start}");
        assert!(!heard.lock().unwrap().is_empty(), "{start}: it was asked");
    }
}

#[test]
fn credentials_come_from_the_users_files_where_the_environment_says_nothing() {
    let refused = |_| http("403 Forbidden", "", b"");
    let (address, heard) = server(refused);
    let mate = Mate::new("ana", "s3://bucket/prefix");
    let home = mate.space.path().join("home/.aws");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(
        home.join("credentials"),
        "[lab]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n",
    )
    .unwrap();
    std::fs::write(
        home.join("config"),
        format!(
            "[profile lab]\nregion = eu-north-1\nendpoint_url = http://{address}\n\
             [profile sso]\nsso_session = lab\n"
        ),
    )
    .unwrap();
    let exec = |profile: &str| {
        let mut command = mate.space.command(&["exec", "p.toml"]);
        command
            .env("AWS_PROFILE", profile)
            .env("AWS_ALLOW_HTTP", "true");
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        stderr
    };
    // Who cannot share computes all the same, and hears why.
    let stderr = exec("sso");
    assert!(stderr.contains("by `sso_session`"), "{stderr}");
    assert!(stderr.contains("hint: `eval"), "{stderr}");
    assert!(heard.lock().unwrap().is_empty());
    mate.space.write("p.toml", &super::pipeline("two"));
    exec("lab");
    let requests = heard.lock().unwrap().join("\n");
    assert!(requests.contains("AKIAPROFILE/"), "{requests}");
    assert!(requests.contains("/eu-north-1/s3/"), "{requests}");
    // A web server's secret, likewise, and only its own.
    let (address, heard) = server(refused);
    let url = format!("[[remote]]\nname = \"team\"\nurl = \"http://{address}/cache\"\n");
    mate.space.write("runner.toml", &url);
    let netrc = "machine other.example login eve password x\n\
                 machine 127.0.0.1\n  login ana\n  password pass\n";
    std::fs::write(mate.space.path().join("home/.netrc"), netrc).unwrap();
    mate.space.write("p.toml", &super::pipeline("three"));
    mate.exec(&[]);
    // `ana:pass` in base 64.
    let requests = heard.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(
        requests.contains("authorization: basic yw5honbhc3m="),
        "{requests}"
    );
}

#[test]
fn a_plan_asks_for_many_nodes_at_once() {
    // How many are being asked for, and the most that ever were.
    let counts = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let seen = Arc::clone(&counts);
    let (address, _) = server(move |_| {
        let (counts, changed) = &*seen;
        let mut both = counts.lock().unwrap();
        both.0 += 1;
        both.1 = both.1.max(both.0);
        changed.notify_all();
        let enough = |both: &mut (usize, usize)| both.1 < 8;
        let (mut both, _) = changed
            .wait_timeout_while(both, Duration::from_secs(5), enough)
            .unwrap();
        both.0 -= 1;
        http("404 Not Found", "", b"")
    });
    let mate = Mate::new("ana", &format!("http://{address}/cache"));
    let nodes: Vec<String> = (0..10)
        .map(|i| format!("[nodes.n{i}]\nkind = \"probe\"\nvalue = \"{i}\"\n"))
        .collect();
    let text = format!("version = 1\nname = \"wide\"\n{}", nodes.concat());
    mate.space.write("p.toml", &text);
    let ran = mate.space.run(&["plan", "p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(counts.0.lock().unwrap().1 >= 8, "{:?}", counts.0);
}

#[test]
fn a_secret_shows_up_in_no_log_record_report_or_command_line() {
    let secret = format!("s3cr3t-{:x}", std::process::id());
    let (address, heard) = server(|_| {
        http(
            "403 Forbidden",
            "",
            b"<Error><Code>AccessDenied</Code></Error>",
        )
    });
    let mate = Mate::new("ana", "s3://bucket/prefix");
    let run = |args: &[&str]| {
        let output = mate
            .space
            .command(args)
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", &secret)
            .env("AWS_SESSION_TOKEN", format!("token-{secret}"))
            .env("AWS_ENDPOINT_URL", format!("http://{address}"))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("RUNNER_LOG", "trace")
            .output()
            .unwrap();
        let all = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&all).into_owned();
        assert!(!text.contains(&secret), "{args:?} told a secret");
        (output.status.code(), text)
    };
    let (code, text) = run(&["exec", "p.toml", "-vv", "--events", "events.jsonl"]);
    assert_eq!(code, Some(0), "{text}");
    run(&["plan", "p.toml", "-vv"]);
    run(&["log", "-vv"]);
    run(&["cache", "verify", "--remote", "team", "-vv"]);
    run(&["cache", "push", "-vv"]);
    let requests = heard.lock().unwrap().join("\n");
    assert!(
        requests.contains("AKIAEXAMPLE"),
        "it was really asked: {requests}"
    );
    for path in files(mate.space.path(), "") {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "{} holds the secret", path.display());
    }
    // A password in the project's file is refused, and not told either.
    let text = format!("[[remote]]\nurl = \"https://ana:{secret}@example.org/cache\"\n");
    mate.space.write("runner.toml", &text);
    let ran = mate.space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(!ran.stderr.contains(&secret), "{}", ran.stderr);
}
