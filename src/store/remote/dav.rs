//! A folder of a web server: `WebDAV` for writing, any server for reading.
//!
//! PUT is not atomic on all servers, and its conditions are ignored by most. Entries are therefore
//! sent to `tmp/` and moved to their names, which servers do in one step, and only if there is
//! none where that is asked for.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
};

use ureq::{
    Body as Answer,
    http::{Method, Request, Response, Uri},
};

use super::{
    Body, Entry, Fault, Remote, collect, copy, decode, is_plain,
    multistatus::{self, date},
    not_of_size, profile,
    secret::Secret,
    wire::{Limits, Paced, Trouble, Wire, broken, check_body, refusal},
};
use crate::{http::proxy::is_this_machine, store::tmp::random};

/// Longer lists of one folder are refused.
const LONGEST_LIST: u64 = 64 << 20;
/// More folders are not listed in one call.
const MOST_FOLDERS: usize = 20_000;
const DEEPEST: usize = 8;
const PROPERTIES: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <D:propfind xmlns:D=\"DAV:\"><D:prop><D:resourcetype/><D:getcontentlength/>\
    <D:getlastmodified/></D:prop></D:propfind>";

/// A folder of a web server.
#[derive(Debug)]
pub(super) struct Dav {
    name: String,
    /// Scheme, host and port.
    origin: String,
    /// The folder's path, without a slash at its end.
    root: String,
    wire: Wire,
    secret: Option<Secret>,
    /// Folders that are known to be there.
    made: Mutex<HashSet<String>>,
}

type Asked = Result<Response<Answer>, (Trouble, Fault)>;

impl Dav {
    /// Opens `<scheme>://<host>/<folder>`; its secret, if it has one, comes from `env`
    /// or the user's `.netrc`.
    pub(super) fn open(
        name: &str,
        scheme: &str,
        host: &str,
        folder: &str,
        limits: Limits,
        env: HashMap<String, OsString>,
    ) -> Result<Self, String> {
        let origin = format!("{scheme}://{host}");
        let uri: Option<Uri> = format!("{origin}/").parse().ok();
        let server = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        let hidden = scheme == "https" || is_this_machine(server);
        let mut secret = Secret::of(name, &env)?;
        if secret.is_some() && !hidden {
            return Err(
                "a secret for it is in the environment, and would be sent where others read it\n\
                 hint: write `https` in place of `http`"
                    .to_owned(),
            );
        }
        if secret.is_none() && hidden {
            secret = (profile::netrc(&env, server)?)
                .map(|(user, password)| Secret::basic(&user, &password))
                .transpose()?;
        }
        let wire = Wire::new(limits, env).map_err(|error| format!("{error:#}"))?;
        let root = match folder {
            "" => String::new(),
            folder => format!("/{folder}"),
        };
        Ok(Self {
            name: name.to_owned(),
            origin,
            root,
            wire,
            secret,
            made: Mutex::default(),
        })
    }

    /// Where an entry is on the server.
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    /// One exchange about the server's path `at`, whatever comes of it.
    fn once(
        &self,
        method: &str,
        at: &str,
        headers: &[(&'static str, &str)],
        body: Option<(&mut dyn Read, u64)>,
    ) -> Asked {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let address = format!("{}{at}", self.origin);
        let mut request = Request::builder().method(method).uri(address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(Secret(value)) = &self.secret {
            request = request.header("authorization", value);
        }
        let request = request.body(()).map_err(|_| {
            (
                Trouble::Unsent,
                Fault::Wrong(format!("`{at}` cannot be asked")),
            )
        })?;
        self.wire.send(request.into_parts().0, body)
    }

    /// An exchange that may be made twice; an answer of `good` is returned, with its status.
    fn ask(
        &self,
        method: &str,
        at: &str,
        headers: &[(&'static str, &str)],
        body: Option<&[u8]>,
        good: &[u16],
    ) -> Result<(u16, Response<Answer>), Fault> {
        self.wire.retry(|| {
            let mut bytes = body.unwrap_or_default();
            let size = bytes.len() as u64;
            let body = body.map(|_| (&mut bytes as &mut dyn Read, size));
            let answer = self.once(method, at, headers, body);
            let mut answer = answer.map_err(|(_, fault)| (true, fault))?;
            let status = answer.status().as_u16();
            if good.contains(&status) {
                Ok((status, answer))
            } else {
                Err((true, refusal(status, &mut answer)))
            }
        })
    }

    /// The answer to GET, and its length if the server tells.
    fn fetch(&self, path: &str) -> Result<Option<(Paced, Option<u64>)>, Fault> {
        let (status, answer) = self.ask("GET", &self.at(path), &[], None, &[200, 206, 404, 410])?;
        if matches!(status, 404 | 410) {
            return Ok(None);
        }
        check_body(status, answer.headers(), false)?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let chunked = header("transfer-encoding").is_some();
        let length = header("content-length").and_then(|text| text.trim().parse().ok());
        let length = length.filter(|_| !chunked);
        if length.is_none() && !chunked {
            // An end that is only the connection's cannot be told from a break.
            return Err(Fault::Wrong("the server tells no length".to_owned()));
        }
        Ok(Some((
            Paced::new(answer.into_body(), &self.wire.limits),
            length,
        )))
    }

    /// Makes the folder at the server's path `folder`, and those above it where they are missing.
    fn make_folder(&self, folder: &str) -> Result<(), Fault> {
        if folder.is_empty() || self.lock().contains(folder) {
            return Ok(());
        }
        let at = format!("{folder}/");
        let mut above = folder.rsplit_once('/').map(|(above, _)| above);
        loop {
            // 405 is said where there is one already, and 423 to the slower of two.
            let good = &[200, 201, 204, 301, 404, 405, 409, 423];
            let (status, mut answer) = self.ask("MKCOL", &at, &[], None, good)?;
            match (status, above.take()) {
                (404 | 409, Some(above)) if !above.is_empty() => self.make_folder(above)?,
                (404 | 409, _) => return Err(refusal(status, &mut answer)),
                _ => break,
            }
        }
        self.lock().insert(folder.to_owned());
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a body to a new name in `tmp`.
    fn send(&self, body: Body<'_>) -> Result<String, Fault> {
        let path = format!("tmp/{:016x}{:016x}", random(), random());
        let mut made = false;
        let sent = self.wire.retry(|| {
            loop {
                let (mut reader, size): (Box<dyn Read>, u64) = match body {
                    Body::Bytes(bytes) => (Box::new(bytes), bytes.len() as u64),
                    Body::File(file, size) => (Box::new(FromStart(file, 0, size)), size),
                };
                let answer = self.once("PUT", &self.at(&path), &[], Some((&mut *reader, size)));
                let mut answer = answer.map_err(|(_, fault)| (true, fault))?;
                match answer.status().as_u16() {
                    201 | 204 => return Ok(()),
                    // nginx answers 500 where a folder is missing.
                    404 | 409 | 500 if !made => {
                        made = true;
                        self.make_folder(&self.at("tmp"))
                            .map_err(|fault| (false, fault))?;
                    }
                    status @ (404 | 405 | 501) => {
                        let text = format!("the server takes no files (it answered {status})");
                        return Err((false, Fault::Denied(text)));
                    }
                    status => return Err((true, refusal(status, &mut answer))),
                }
            }
        });
        if let Err(fault) = sent {
            if !matches!(fault, Fault::Denied(_)) {
                self.drop_tmp(&path);
            }
            return Err(fault);
        }
        Ok(path)
    }

    /// Gives what was sent to `from` the name `to`; false if that is taken and must stay.
    fn place(&self, from: &str, to: &str, replace: bool) -> Result<bool, Fault> {
        let target = format!("{}{}", self.origin, self.at(to));
        let overwrite = if replace { "T" } else { "F" };
        let headers = [("destination", target.as_str()), ("overwrite", overwrite)];
        let (mut made, mut unsure) = (false, false);
        self.wire.retry(|| {
            loop {
                let mut answer = match self.once("MOVE", &self.at(from), &headers, None) {
                    Ok(answer) => answer,
                    Err((trouble, fault)) => {
                        unsure |= trouble != Trouble::Unsent;
                        return Err((true, fault));
                    }
                };
                match answer.status().as_u16() {
                    201 | 204 => return Ok(true),
                    412 => return Ok(false),
                    // An earlier attempt was done, though its answer was lost.
                    404 if unsure && self.stat(to).is_ok_and(|entry| entry.is_some()) => {
                        return Ok(true);
                    }
                    404 | 409 | 500 if !made => {
                        made = true;
                        let to = self.at(to);
                        let folder = to.rsplit_once('/').map_or("", |(folder, _)| folder);
                        self.make_folder(folder).map_err(|fault| (false, fault))?;
                    }
                    status @ (405 | 501) => {
                        let text = format!("the server moves no files (it answered {status})");
                        return Err((false, Fault::Denied(text)));
                    }
                    status => {
                        unsure |= status >= 500;
                        return Err((true, refusal(status, &mut answer)));
                    }
                }
            }
        })
    }

    /// Removes what was sent and not used. Left behind, it is swept with what else is old there.
    fn drop_tmp(&self, path: &str) {
        let _ = self.once("DELETE", &self.at(path), &[], None);
    }

    fn publish(&self, path: &str, body: Body<'_>, replace: bool) -> Result<bool, Fault> {
        let tmp = self.send(body)?;
        let placed = self.place(&tmp, path, replace);
        if !matches!(placed, Ok(true)) {
            self.drop_tmp(&tmp);
        }
        placed
    }

    /// The names directly in a folder, nothing if it is not there.
    fn items(&self, folder: &str) -> Result<Vec<multistatus::Item>, Fault> {
        let headers = [
            ("depth", "1"),
            ("content-type", "application/xml; charset=utf-8"),
        ];
        let at = self.at(&format!("{folder}/"));
        let good = &[207, 400, 404, 405, 410, 501, 200];
        let (status, answer) = self.ask("PROPFIND", &at, &headers, Some(PROPERTIES), good)?;
        match status {
            404 | 410 => return Ok(Vec::new()),
            207 => {}
            _ => {
                let text = format!("the server lists nothing (it answered {status})");
                return Err(Fault::Unsupported(text));
            }
        }
        let mut body = Paced::new(answer.into_body(), &self.wire.limits);
        let xml = collect(&mut body, LONGEST_LIST, 0, broken)?;
        multistatus::read(&xml)
            .ok_or_else(|| Fault::Wrong("the list of a folder makes no sense".to_owned()))
    }
}

impl Remote for Dav {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        self.wire.retry(|| {
            let Some((mut body, length)) = self.fetch(path).map_err(|fault| (false, fault))? else {
                return Ok(None);
            };
            if length.is_some_and(|length| length > most) {
                return Err((false, Fault::Wrong(format!("longer than {most} bytes"))));
            }
            let expected = length.unwrap_or(0);
            let bytes =
                collect(&mut body, most, expected, broken).map_err(|fault| (true, fault))?;
            match length {
                Some(length) if length != bytes.len() as u64 => {
                    Err((false, not_of_size(bytes.len() as u64, length)))
                }
                _ => Ok(Some(bytes)),
            }
        })
    }

    fn read(&self, path: &str, size: u64, sink: &mut dyn Write) -> Result<bool, Fault> {
        let Some((mut body, length)) = self.fetch(path)? else {
            return Ok(false);
        };
        if let Some(length) = length.filter(|length| *length != size) {
            return Err(not_of_size(length, size));
        }
        copy(&mut body, size, sink, broken)?;
        Ok(true)
    }

    fn put_new(&self, path: &str, body: Body<'_>) -> Result<bool, Fault> {
        if matches!(body, Body::File(..)) && self.stat(path)?.is_some() {
            return Ok(false);
        }
        self.publish(path, body, false)
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        if self.publish(path, Body::Bytes(bytes), true)? {
            Ok(())
        } else {
            Err(Fault::Wrong("the server does not replace".to_owned()))
        }
    }

    fn stat(&self, path: &str) -> Result<Option<Entry>, Fault> {
        let (status, answer) = self.ask("HEAD", &self.at(path), &[], None, &[200, 404, 410])?;
        if status != 200 {
            return Ok(None);
        }
        check_body(status, answer.headers(), false)?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let size = header("content-length").and_then(|text| text.trim().parse().ok());
        match (size, header("last-modified").and_then(date)) {
            (Some(size), Some(modified)) => Ok(Some(Entry {
                path: path.to_owned(),
                size,
                modified,
            })),
            _ => Err(Fault::Wrong("the server tells no size or date".to_owned())),
        }
    }

    fn list(&self, folder: &str, most: usize) -> Result<Vec<Entry>, Fault> {
        let root = decode(&self.root).unwrap_or_default();
        let mut entries = Vec::new();
        let mut folders = vec![(folder.to_owned(), 0)];
        let mut asked = 0;
        while let Some((folder, depth)) = folders.pop() {
            asked += 1;
            if asked > MOST_FOLDERS {
                return Err(Fault::Wrong("there are too many folders".to_owned()));
            }
            for item in self.items(&folder)? {
                // Only what is directly in the folder that was asked for.
                let path = item.path.strip_prefix(root.as_str());
                let name = path
                    .and_then(|path| path.strip_prefix('/')?.strip_prefix(folder.as_str()))
                    .and_then(|path| path.strip_prefix('/'))
                    .map(|name| name.trim_end_matches('/'));
                let Some(name) = name.filter(|name| !name.contains('/') && is_plain(name)) else {
                    continue;
                };
                let path = format!("{folder}/{name}");
                if item.is_folder {
                    if depth < DEEPEST {
                        folders.push((path, depth + 1));
                    }
                } else if let (Some(size), Some(modified)) = (item.size, item.modified) {
                    entries.push(Entry {
                        path,
                        size,
                        modified,
                    });
                    if entries.len() >= most {
                        return Ok(entries);
                    }
                }
            }
        }
        Ok(entries)
    }

    fn remove(&self, path: &str) -> Result<(), Fault> {
        let good = &[200, 202, 204, 404, 410, 405, 501];
        match self.ask("DELETE", &self.at(path), &[], None, good)? {
            (status @ (405 | 501), _) => {
                let text = format!("the server removes no files (it answered {status})");
                Err(Fault::Denied(text))
            }
            _ => Ok(()),
        }
    }

    fn now(&self) -> Result<i64, Fault> {
        let path = self.send(Body::Bytes(b"now"))?;
        let entry = self.stat(&path);
        self.drop_tmp(&path);
        let gone = || Fault::Wrong("what was just written is not there".to_owned());
        Ok(entry?.ok_or_else(gone)?.modified)
    }
}

/// A file's first bytes, whatever its own position is.
struct FromStart<'a>(&'a File, u64, u64);

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min((self.2 - self.1) as usize);
        let count = self.0.read_at(&mut buffer[..want], self.1)?;
        if count == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.1 += count as u64;
        Ok(count)
    }
}
