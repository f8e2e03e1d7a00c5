//! What a `WebDAV` server answers to PROPFIND: a list of what is in a folder.

use jiff::fmt::rfc2822::DateTimeParser;
use quick_xml::{Reader, events::Event};

use super::decode;

/// One entry of the list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Its path on the server, decoded.
    pub(super) path: String,
    pub(super) is_folder: bool,
    pub(super) size: Option<u64>,
    /// In nanoseconds since 1970.
    pub(super) modified: Option<i64>,
}

/// Reads a list; nothing if it is none. Servers differ in prefixes and order, which do not matter.
pub(super) fn read(xml: &[u8]) -> Option<Vec<Item>> {
    let mut reader = Reader::from_reader(xml);
    let mut items = Vec::new();
    let mut at: Vec<Vec<u8>> = Vec::new();
    let mut item = Item::default();
    let mut text = String::new();
    let mut is_list = false;
    loop {
        match reader.read_event().ok()? {
            Event::Eof => break,
            Event::Start(tag) => {
                let name = tag.local_name().as_ref().to_ascii_lowercase();
                // Nothing real is nested deeper.
                if at.len() > 32 {
                    return None;
                }
                match name.as_slice() {
                    b"multistatus" if at.is_empty() => is_list = true,
                    b"response" => item = Item::default(),
                    b"collection" => item.is_folder = true,
                    _ => {}
                }
                text.clear();
                at.push(name);
            }
            Event::Empty(tag) => {
                let name = tag.local_name();
                item.is_folder |= name.as_ref().eq_ignore_ascii_case(b"collection");
            }
            Event::Text(piece) => text.push_str(&piece.decode().ok()?),
            Event::CData(piece) => text.push_str(&piece.decode().ok()?),
            // `&amp;` and the like, which no entry's name holds.
            Event::GeneralRef(_) => text.push('&'),
            Event::End(_) => {
                let name = at.pop()?;
                let inside = at.last().map(Vec::as_slice);
                match (name.as_slice(), inside) {
                    (b"href", Some(b"response")) => item.path = path(text.trim())?,
                    (b"getcontentlength", _) => item.size = text.trim().parse().ok(),
                    (b"getlastmodified", _) => item.modified = date(&text),
                    (b"response", _) => items.push(std::mem::take(&mut item)),
                    _ => {}
                }
                text.clear();
            }
            _ => {}
        }
    }
    (is_list && at.is_empty()).then_some(items)
}

/// An HTTP date in nanoseconds since 1970.
pub(super) fn date(text: &str) -> Option<i64> {
    let time = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    time.as_nanosecond().try_into().ok()
}

/// The path of an address, which may be a whole one.
fn path(href: &str) -> Option<String> {
    let path = match href.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => href,
    };
    decode(path.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_several_servers_are_read() {
        let dated = |path: &str, size| Item {
            path: path.to_owned(),
            is_folder: false,
            size: Some(size),
            modified: Some(784_111_777_000_000_000),
        };
        let xml = br#"<?xml version="1.0" encoding="utf-8" ?>
            <D:multistatus xmlns:D="DAV:"><D:response><D:href>/c/objects/</D:href><D:propstat>
            <D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>
            <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
            <D:response><D:href>/c/objects/a%62</D:href><D:propstat><D:prop>
            <D:getcontentlength>12</D:getcontentlength>
            <D:getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</D:getlastmodified>
            <D:resourcetype/></D:prop></D:propstat></D:response></D:multistatus>"#;
        let folder = Item {
            path: "/c/objects/".to_owned(),
            is_folder: true,
            ..Item::default()
        };
        assert_eq!(read(xml).unwrap(), [folder, dated("/c/objects/ab", 12)]);
        let plain = br#"<multistatus xmlns="DAV:"><response><propstat><prop><getlastmodified>
            Sun, 06 Nov 1994 08:49:37 GMT</getlastmodified><getcontentlength>7</getcontentlength>
            </prop></propstat><href>http://h:1/x</href></response></multistatus>"#;
        assert_eq!(read(plain).unwrap(), [dated("/x", 7)]);
    }

    #[test]
    fn what_is_no_list_or_half_of_one_is_refused() {
        let deep = format!("<multistatus>{}", "<a>".repeat(100));
        for xml in [
            "",
            "hello",
            "<html><body>hello</body></html>",
            "<multistatus><response><href>/x</href>",
            "<multistatus><response><href>/%zz</href></response></multistatus>",
            "<multistatus></response>",
            &deep,
        ] {
            assert_eq!(read(xml.as_bytes()), None, "{xml}");
        }
    }
}
