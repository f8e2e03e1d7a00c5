//! `tokenizer.json`, through the tokenizers crate that transformers uses too.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    Placed,
    bytes::{Spelling, byte_of_name},
    finder::Finder,
    limits::{Limits, MOST_EXPANDED},
};

/// How long one text may take where nothing else bounds it.
const PATIENCE: Duration = Duration::from_secs(8);

/// The longest text that is split by patterns that look around, in bytes. After a
/// million steps the engine gives up on a match, which the crate takes for the end
/// of the text: that many spaces in a row give wrong tokens without an error.
const MOST_WATCHED: usize = 500_000;

/// A `tokenizer.json` that was read.
pub(super) struct Json {
    inner: Arc<tokenizers::Tokenizer>,
    special: BTreeMap<u32, String>,
    /// The token that text without a token becomes, and its text.
    unknown: Option<(u32, String)>,
    /// What may not be spelled out in a text.
    spelled: Finder,
    spelling: Spelling,
    limits: Limits,
    /// A text took too long once, and a thread may still be at it.
    stuck: Arc<AtomicBool>,
}

impl Json {
    /// Reads a file's bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let limits = Limits::read(bytes)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))?;
        // A chat prompt is whole and alone: neither cut nor filled up, and all its
        // special tokens come from the template.
        guarded(|| {
            inner.with_padding(None);
            inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
            inner.with_truncation(None).map(|_| ())
        })?;
        check_ids(&inner, &limits)?;
        let added = inner.get_added_vocabulary().get_added_tokens_decoder();
        // A byte or word that is unknown becomes this one, which text may do.
        let unknown = limits.unknown.clone();
        let special = (added.iter()).filter(|(_, token)| {
            token.special && !token.content.is_empty() && Some(&token.content) != unknown.as_ref()
        });
        let special: BTreeMap<u32, String> =
            (special.map(|(&id, token)| (id, token.content.clone()))).collect();
        let unknown = unknown.and_then(|token| Some((inner.token_to_id(&token)?, token)));
        let known = (unknown.iter()).filter(|(id, _)| added.contains_key(id));
        let spelled = (special.iter().map(|(&id, text)| (text.clone(), id)))
            .chain(known.map(|(id, text)| (text.clone(), *id)));
        Ok(Self {
            spelled: Finder::new(spelled.collect())?,
            spelling: Spelling::of(inner.get_decoder()),
            special,
            unknown,
            inner: Arc::new(inner),
            limits,
            stuck: Arc::default(),
        })
    }

    pub(super) fn largest_id(&self) -> u32 {
        let ids = self.inner.get_vocab(true).into_values();
        ids.max().unwrap_or(0)
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<Placed>> {
        let mut most = MOST_EXPANDED / self.limits.expansion;
        if self.limits.watched {
            most = most.min(MOST_WATCHED);
        }
        ensure!(
            text.len() <= most,
            "a text of {} bytes is longer than the {most} that its parts allow",
            text.len()
        );
        let encoding = if self.limits.watched {
            self.encode_watched(text)?
        } else {
            guarded(|| self.inner.encode(text, false))?
        };
        let ids = encoding.get_ids().iter();
        let places = encoding.get_offsets().iter();
        Ok(ids
            .zip(places)
            .map(|(&id, &(start, end))| Placed { id, start, end })
            .collect())
    }

    /// Encodes on a thread of its own, which is left alone if it takes too long: a
    /// pattern that looks around can take exponential time.
    fn encode_watched(&self, text: &str) -> Result<tokenizers::Encoding> {
        ensure!(
            !self.stuck.load(Ordering::Relaxed),
            "an earlier text took more than {PATIENCE:?}"
        );
        let (sender, receiver) = mpsc::sync_channel(1);
        let (inner, owned) = (Arc::clone(&self.inner), text.to_owned());
        std::thread::Builder::new()
            .name("tokenizer".to_owned())
            .spawn(move || {
                // Nobody may be waiting any more.
                let _ = sender.send(guarded(|| inner.encode(owned, false)));
            })
            .context("failed to start a thread")?;
        if let Ok(encoded) = receiver.recv_timeout(PATIENCE) {
            return encoded;
        }
        self.stuck.store(true, Ordering::Relaxed);
        bail!(
            "a text of {} bytes takes more than {PATIENCE:?}\n\
             hint: the file's pre-tokenizer has a pattern that does not fit such a text",
            text.len()
        )
    }

    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, true))
    }

    /// See [`super::Tokenizer::token_bytes`].
    pub(super) fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let special = self.special.get(&id);
        if special.is_some_and(|text| byte_of_name(text).is_none())
            || self
                .unknown
                .as_ref()
                .is_some_and(|(unknown, _)| *unknown == id)
        {
            return None;
        }
        let token = self.inner.id_to_token(id)?;
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let literal = added.get(&id).is_some_and(|added| !added.normalized);
        self.spelling.bytes(&token, literal)
    }

    /// See [`super::Tokenizer::is_special`].
    pub(super) fn is_special(&self, id: u32, covered: &str) -> bool {
        if let Some((unknown, text)) = &self.unknown
            && *unknown == id
        {
            return covered.trim() == text;
        }
        (self.special.get(&id))
            .is_some_and(|text| byte_of_name(text).is_none() || covered.trim() == text)
    }

    /// See [`super::Tokenizer::special_starts`].
    pub(super) fn special_starts(&self, text: &str) -> BTreeSet<usize> {
        self.spelled.starts(text)
    }
}

/// Ids that the crate changed, and ids that two tokens share: which of these a
/// decoder shows is left to chance.
fn check_ids(inner: &tokenizers::Tokenizer, limits: &Limits) -> Result<()> {
    for (content, id) in &limits.added {
        let real = inner.token_to_id(content);
        ensure!(
            content.is_empty() || real.is_some_and(|real| u64::from(real) == *id),
            "the added token `{content}` cannot have the id {id}: it is not the next that is free"
        );
    }
    let vocab = inner.get_vocab(true);
    let mut seen = HashSet::with_capacity(vocab.len());
    let twice = vocab.values().filter(|&&id| !seen.insert(id)).min();
    if let Some(id) = twice {
        bail!("two tokens have the id {id}");
    }
    Ok(())
}

/// Runs code of the tokenizers crate, which panics on some hostile files.
fn guarded<T>(
    run: impl FnOnce() -> std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| anyhow!("{error}")),
        Err(panic) => Err(anyhow!("{}", panic_text(panic.as_ref()))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = (panic.downcast_ref::<String>().map(String::as_str))
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the tokenizer panicked").to_owned()
}
