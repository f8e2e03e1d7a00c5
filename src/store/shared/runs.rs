//! The history of teammates: signed runs in shared caches.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Sharing, peer::Peer, spread::spread};
use crate::{
    digest::canonical,
    store::{Inner, Store, check_name, document, publish::Place},
    trust::{Subject, Writer},
};

/// The longest run read, in bytes.
pub(in crate::store) const LONGEST: usize = 8 << 20;
/// No more runs of one domain are listed.
const MOST: usize = 100_000;
pub(in crate::store) const CONTEXT: &str = "runner run v1";

/// A run of somebody else.
#[derive(Debug, Clone)]
pub struct RemoteRun {
    /// Its identity.
    pub id: String,
    /// What is known of it.
    pub run: Value,
    /// The key that signed it.
    pub signer: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Written {
    v: u32,
    domain: String,
    id: String,
    run: Value,
}

/// The path and the bytes of a signed run.
pub(super) fn signed(
    writer: &Writer<'_>,
    id: &str,
    json: &str,
) -> Result<(String, String), String> {
    let run: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let value = json!({"v": 1, "domain": writer.domain, "id": id, "run": run});
    let line = canonical(&value);
    if line.len() > LONGEST / 2 {
        return Err(format!("run `{id}` is too long to be shared"));
    }
    let signature = writer.key.sign(Subject::Run, &line);
    let text = document::seal(CONTEXT, &line, &[signature]);
    Ok((format!("runs/{}/{id}", writer.domain), text))
}

impl Store {
    /// The newest `most` runs of each trusted domain, other than those in `mine`, as far as the
    /// shared caches can be asked; each is fetched once and kept.
    pub fn remote_runs(&self, mine: &dyn Fn(&str) -> bool, most: usize) -> Vec<RemoteRun> {
        let Some(sharing) = self.0.sharing() else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for domain in sharing.trust.domains() {
            for peer in &sharing.peers {
                all.extend(self.0.runs_of(sharing, peer, domain, mine, most));
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all.dedup_by(|a, b| a.id == b.id);
        all
    }
}

impl Inner {
    fn runs_of(
        &self,
        sharing: &Sharing,
        peer: &Peer,
        domain: &str,
        mine: &dyn Fn(&str) -> bool,
        most: usize,
    ) -> Vec<RemoteRun> {
        let folder = format!("runs/{domain}");
        let listed = self.ask(sharing, peer, |peer| peer.remote.list(&folder, MOST));
        let mut ids: Vec<String> = match listed {
            Some(entries) => entries
                .iter()
                .filter_map(|entry| entry.path.rsplit('/').next().map(str::to_owned))
                .collect(),
            // What was fetched before is still there.
            None => self
                .dir
                .names_in(&format!("fetched/{folder}"))
                .unwrap_or_default(),
        };
        ids.retain(|id| check_name(id).is_ok() && !mine(id));
        // Names begin with the time.
        ids.sort_unstable();
        let newest = ids.split_off(ids.len().saturating_sub(most));
        let read = |id: &String| self.run_of(sharing, peer, domain, id);
        spread(&newest, read).into_iter().flatten().collect()
    }

    fn run_of(&self, sharing: &Sharing, peer: &Peer, domain: &str, id: &str) -> Option<RemoteRun> {
        let path = format!("runs/{domain}/{id}");
        let kept = Place::new(&format!("fetched/runs/{domain}"), id);
        let here = self.bytes_of(&kept.path(), LONGEST as u64);
        let (bytes, new) = match here {
            Some(bytes) => (bytes, false),
            None => {
                let most = LONGEST as u64;
                (
                    self.ask(sharing, peer, |peer| peer.remote.get(&path, most))??,
                    true,
                )
            }
        };
        match sharing.believe_run(&bytes, domain, id) {
            Ok(run) => {
                if new && let Ok(tmp) = self.tmp_with(&bytes) {
                    // Without it the run is asked for again next time.
                    let _ = self.overwrite(&kept, tmp, 0o444, false);
                }
                Some(run)
            }
            Err(reason) => {
                self.refuse(sharing, peer, &path, &reason);
                None
            }
        }
    }
}

impl Sharing {
    fn believe_run(&self, bytes: &[u8], domain: &str, id: &str) -> Result<RemoteRun, String> {
        let what = (Subject::Run, CONTEXT, LONGEST);
        let (document, signer) = self.signed(what, bytes, domain)?;
        let written: Written =
            serde_json::from_str(document.line).map_err(|error| error.to_string())?;
        if written.v != 1 || written.domain != domain || written.id != id {
            return Err("it is another run".to_owned());
        }
        Ok(RemoteRun {
            id: written.id,
            run: written.run,
            signer,
        })
    }
}
