//! One upload to one shared cache: objects first, then the signed record that names them.

use std::{
    fs::File,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Sharing,
    items::{ListedPack, PackList},
    peer::Peer,
    upload::Trouble,
};
use crate::{
    digest::Digest,
    store::{
        Inner,
        dir::Found,
        divergence::Side,
        items::space_path,
        lock,
        objects::object_place,
        publish::{Place, Present},
        record::{LONGEST, Reference, Written},
        records::{DOMAIN, record_place},
        remote::{Body, Entry},
        shard,
    },
    trust::{Subject, Writer},
};

/// From this size on it is asked first whether an object is there already.
const LARGE: u64 = 16 << 10;
/// An object that has lain in a shared cache for this long may be about to be collected; whether
/// it still is there is asked again once a record names it.
const OLD: i64 = 24 * 3600 * 1_000_000_000;

/// Packs above this size, such as the epochs of a training, are nobody else's concern.
const LARGEST_PACK: u64 = 64 << 20;

/// What became of an object that is to be uploaded.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Sent,
    Fresh,
    /// There for long: a collection may be about to take it.
    Old,
}

impl Inner {
    pub(super) fn upload_record(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        writer: &Writer<'_>,
        key: &Digest,
    ) -> Result<(), Trouble> {
        let path = record_place(key).path();
        let Some(bytes) = self.bytes_of(&path, LONGEST as u64) else {
            // Found in a shared cache, and not computed here.
            return Ok(());
        };
        let written = Written::decode(&bytes, key, DOMAIN)
            .map_err(|bad| Trouble::Here(format!("{path}: {}", bad.reason)))?
            .in_domain(writer.domain);
        peer.found()?;
        let mut old = Vec::new();
        for object in written.references() {
            if self.upload_object(sharing, peer, &object)? == There::Old {
                old.push(object);
            }
        }
        let sign = |line: &str| writer.key.sign(Subject::Record, line);
        let line = written.line().map_err(Trouble::Here)?;
        let bytes = written
            .encode_signed(&[sign(&line)])
            .map_err(Trouble::Here)?;
        let place = shard(&format!("actions/{}", writer.domain), key).path();
        if !peer.remote.put_new(&place, Body::Bytes(&bytes))? {
            self.meet(sharing, peer, writer.domain, &place, &written, &bytes)?;
        }
        // A collection may have taken what was old and unnamed until now.
        for object in old {
            self.upload_object(sharing, peer, &object)?;
        }
        if let Some(recipe) = written.recipe {
            let place = shard(&format!("recipes/{}", writer.domain), &recipe).path();
            // The latest one: data or models at the paths of the file may have changed.
            peer.remote.replace(&place, &bytes)?;
        }
        let mut state = lock(&sharing.uploads.state);
        state.report.records += 1;
        state.report.bytes += bytes.len() as u64;
        Ok(())
    }

    /// What to do about a record that is there already: the first one stays, unless it is not
    /// believed; then somebody else wrote it into this domain.
    fn meet(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        domain: &str,
        place: &str,
        ours: &Written,
        bytes: &[u8],
    ) -> Result<(), Trouble> {
        let Some(there) = peer.remote.get(place, LONGEST as u64)? else {
            return Ok(peer.remote.replace(place, bytes)?);
        };
        match sharing.believe_key(&there, domain, &ours.key) {
            Ok((first, signer)) => {
                if first.artifact != ours.artifact {
                    let sides = [
                        Side::new(first.artifact, signer),
                        Side::new(ours.artifact, "this machine"),
                    ];
                    self.note_divergence(&ours.key, &sides);
                }
                // Its objects may have been collected since.
                for object in first.references().filter(|object| self.has(object)) {
                    self.upload_object(sharing, peer, &object)?;
                }
                Ok(())
            }
            Err(reason) => {
                let subject = format!("{} {place}", peer.name());
                self.warn_once(sharing, &subject, &format!("{reason}; replaced"));
                Ok(peer.remote.replace(place, bytes)?)
            }
        }
    }

    /// Sends an object unless it is there; says whether it was.
    fn upload_object(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        object: &Reference,
    ) -> Result<There, Trouble> {
        let path = object_place(&object.digest).path();
        if object.size >= LARGE
            && !peer.distrusts(&object.digest)
            && let Some(there) = peer.remote.stat(&path)?
            && there.size == object.size
        {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_nanos() as i64;
            let old = now.saturating_sub(there.modified) > OLD;
            return Ok(if old { There::Old } else { There::Fresh });
        }
        let found = self.dir.look(&path);
        let found = found.map_err(|error| Trouble::Here(error.to_string()))?;
        // What is damaged here is told on reading, and never sent on.
        let Present::Good((file, _)) = self.judge_found(found, &object.digest, Some(object.size))
        else {
            return Err(Trouble::Here(format!("{path}: missing or damaged here")));
        };
        send(sharing, peer, &path, &object.digest, (&file, object.size))?;
        Ok(There::Sent)
    }

    pub(super) fn upload_packs(
        &self,
        sharing: &Sharing,
        i: usize,
        writer: &Writer<'_>,
        space: &Digest,
    ) -> Result<(), Trouble> {
        let peer = &sharing.peers[i];
        let here = |error: std::io::Error| Trouble::Here(error.to_string());
        let folder = space_path(space);
        let mut packs = Vec::new();
        for name in self.dir.names_in(&folder).map_err(here)? {
            let Ok(pack) = name.parse::<Digest>() else {
                continue;
            };
            if self.is_known(sharing, i, &pack) {
                continue;
            }
            let place = Place::new(&folder, &name);
            let size = self.dir.size(&place.path()).map_err(here)?;
            if size.is_none_or(|size| size > LARGEST_PACK) {
                continue;
            }
            let Present::Good(()) = self.judge_pack(&place.path(), &pack, None).map_err(here)?
            else {
                continue;
            };
            if let Found::File(file, identity) = self.dir.look(&place.path()).map_err(here)? {
                packs.push((
                    ListedPack {
                        pack,
                        size: identity.size,
                    },
                    place,
                    file,
                ));
            }
        }
        if packs.is_empty() {
            return Ok(());
        }
        peer.found()?;
        for (pack, place, file) in &packs {
            send(sharing, peer, &place.path(), &pack.pack, (file, pack.size))?;
        }
        let list: Vec<ListedPack> = packs.iter().map(|(pack, ..)| *pack).collect();
        let (path, text) = PackList::signed(writer, space, &list);
        peer.remote.replace(&path, text.as_bytes())?;
        self.note_known(sharing, i, list.into_iter().map(|pack| pack.pack));
        Ok(())
    }
}

/// Sends a file of the local store to the same path there, over what is not these bytes.
fn send(
    sharing: &Sharing,
    peer: &Peer,
    path: &str,
    digest: &Digest,
    (file, size): (&File, u64),
) -> Result<(), Trouble> {
    let mut new = peer.remote.put_new(path, Body::File(file, size))?;
    let wrong = |entry: Entry| entry.size != size;
    if !new && (peer.distrusts(digest) || peer.remote.stat(path)?.is_none_or(wrong)) {
        // Somebody put other bytes under this name, or a half of these.
        peer.remote.remove(path)?;
        peer.remote.put_new(path, Body::File(file, size))?;
        lock(&peer.bad).remove(digest);
        new = true;
    }
    if new {
        let mut state = lock(&sharing.uploads.state);
        state.report.objects += 1;
        state.report.bytes += size;
    }
    Ok(())
}
