//! Buckets: S3, Google Cloud Storage and Azure Blob Storage, through `object_store`.
//!
//! `object_store` knows their dialects and signatures; the exchanges themselves are made by
//! [`Wire`], on the thread that asks. Its runtime therefore has nothing to do but to wait
//! between two attempts.

use std::{
    collections::HashMap,
    error::Error as StdError,
    ffi::OsString,
    fmt,
    io::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::{
    BackoffConfig, Error, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, path::Path,
};
use tokio::runtime::Runtime;

use super::{
    Body, Entry, Fault, PIECE, Remote,
    exchange::{Connector, Told},
    is_plain, not_of_size, profile, read_at, secret,
    wire::{Limits, Wire},
};
use crate::store::tmp::random;

/// Before longer files are sent, it is asked whether they are there.
const LONG: u64 = 1 << 20;
/// Larger files are sent in parts.
const LARGE: u64 = 64 << 20;
const PART: u64 = 16 << 20;
/// The most parts that any service takes.
const MOST_PARTS: u64 = 10_000;

/// A folder in a bucket.
pub(super) struct Cloud {
    name: String,
    store: Box<dyn ObjectStore>,
    prefix: String,
    /// The service knows no "only if there is none".
    plain_put: AtomicBool,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store knows the credentials.
        write!(f, "Cloud({})", self.name)
    }
}

impl Cloud {
    /// Opens `<scheme>://<bucket>/<prefix>`; what else there is to know comes from `env`
    /// and the files of the user that it names.
    pub(super) fn open(
        name: &str,
        scheme: &str,
        bucket: &str,
        prefix: &str,
        limits: Limits,
        env: HashMap<String, OsString>,
    ) -> Result<Self, String> {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: limits.pause,
                max_backoff: limits.pause * 8,
                base: 2.0,
            },
            max_retries: limits.retries as usize,
            retry_timeout: limits.idle * 4,
        };
        let mut texts: Vec<(String, String)> = env
            .iter()
            .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.to_str()?.into())))
            .collect();
        if scheme == "s3" {
            texts.extend(profile::aws(&env)?);
        }
        let wire = Wire::new(limits, env).map_err(|error| format!("{error:#}"))?;
        let connector = Connector(Arc::new(wire));
        // Their own errors may show what the variables hold.
        let failed = |_: Error| {
            format!(
                "the settings for `{scheme}` in the environment or the user's files are wrong\n\
                 hint: {}",
                secret::hint(scheme, name)
            )
        };
        macro_rules! with_settings {
            ($builder:expr, $prefixes:expr) => {{
                let mut builder = $builder;
                for (name, value) in &texts {
                    let ours = $prefixes
                        .iter()
                        .any(|prefix: &&str| name.starts_with(prefix));
                    if let (true, Ok(key)) = (ours, name.parse()) {
                        builder = builder.with_config(key, value);
                    }
                }
                builder.with_retry(retry).with_http_connector(connector)
            }};
        }
        let store: Box<dyn ObjectStore> = match scheme {
            "s3" => Box::new(
                with_settings!(AmazonS3Builder::new(), ["aws_"])
                    .with_bucket_name(bucket)
                    .with_disable_bulk_delete(true)
                    .build()
                    .map_err(failed)?,
            ),
            "gs" => Box::new(
                with_settings!(GoogleCloudStorageBuilder::new(), ["google_"])
                    .with_bucket_name(bucket)
                    .build()
                    .map_err(failed)?,
            ),
            _ => Box::new(
                with_settings!(MicrosoftAzureBuilder::new(), ["azure_"])
                    .with_container_name(bucket)
                    .build()
                    .map_err(failed)?,
            ),
        };
        Ok(Self {
            name: name.to_owned(),
            store,
            prefix: prefix.to_owned(),
            plain_put: AtomicBool::new(false),
        })
    }

    fn path(&self, path: &str) -> Path {
        match self.prefix.as_str() {
            "" => Path::from(path),
            prefix => Path::from(format!("{prefix}/{path}")),
        }
    }

    fn entry(&self, meta: &ObjectMeta) -> Option<Entry> {
        let path = meta.location.as_ref();
        let path = match self.prefix.as_str() {
            "" => path,
            prefix => path.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        is_plain(path).then(|| Entry {
            path: path.to_owned(),
            size: meta.size,
            modified: meta.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX),
        })
    }

    fn found(&self, path: &str) -> Result<Option<GetResult>, Fault> {
        match block_on(self.store.get(&self.path(path)))? {
            Ok(result) => Ok(Some(result)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault(&error)),
        }
    }

    fn put(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<bool, Fault> {
        let payload = PutPayload::from_bytes(bytes);
        let only_new = matches!(mode, PutMode::Create);
        match block_on((self.store).put_opts(&self.path(path), payload, mode.into()))? {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) if only_new => Ok(false),
            Err(error) => Err(fault(&error)),
        }
    }

    /// Sends a file in parts; they become an entry at the end, all at once.
    fn put_parts(&self, path: &str, file: &std::fs::File, size: u64) -> Result<(), Fault> {
        let mut upload =
            block_on(self.store.put_multipart(&self.path(path)))?.map_err(|error| fault(&error))?;
        let part = PART.max(size.div_ceil(MOST_PARTS));
        let sent = (0..size.div_ceil(part)).try_for_each(|number| {
            let at = number * part;
            let bytes = piece(file, at, part.min(size - at))?;
            block_on(upload.put_part(bytes.into()))?.map_err(|error| fault(&error))
        });
        let done = sent.and_then(|()| block_on(upload.complete())?.map_err(|error| fault(&error)));
        if done.is_err() {
            // What cannot be removed now, the bucket's rules for unfinished uploads remove.
            let _ = block_on(upload.abort());
        }
        done.map(|_| ())
    }
}

impl Remote for Cloud {
    fn name(&self) -> &str {
        &self.name
    }

    fn get(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let Some(result) = self.found(path)? else {
            return Ok(None);
        };
        let size = result.meta.size;
        if size > most {
            return Err(Fault::Wrong(format!("longer than {most} bytes")));
        }
        let mut bytes = Vec::with_capacity((size as usize).min(PIECE));
        receive(result, size, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn read(&self, path: &str, size: u64, sink: &mut dyn Write) -> Result<bool, Fault> {
        let Some(result) = self.found(path)? else {
            return Ok(false);
        };
        if result.meta.size != size {
            return Err(not_of_size(result.meta.size, size));
        }
        receive(result, size, sink)?;
        Ok(true)
    }

    fn put_new(&self, path: &str, body: Body<'_>) -> Result<bool, Fault> {
        if let Body::File(_, size) = body
            && size > LONG
            && self.stat(path)?.is_some()
        {
            return Ok(false);
        }
        let bytes = match body {
            Body::File(file, size) if size > LARGE => {
                return self.put_parts(path, file, size).map(|()| true);
            }
            Body::File(file, size) => piece(file, 0, size)?,
            Body::Bytes(bytes) => Bytes::copy_from_slice(bytes),
        };
        if !self.plain_put.load(Ordering::Relaxed) {
            match self.put(path, bytes.clone(), PutMode::Create) {
                Err(Fault::Unsupported(_)) => self.plain_put.store(true, Ordering::Relaxed),
                made => return made,
            }
        }
        if self.stat(path)?.is_some() {
            return Ok(false);
        }
        self.put(path, bytes, PutMode::Overwrite)
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        self.put(path, Bytes::copy_from_slice(bytes), PutMode::Overwrite)
            .map(|_| ())
    }

    fn stat(&self, path: &str) -> Result<Option<Entry>, Fault> {
        match block_on(self.store.head(&self.path(path)))? {
            Ok(meta) => Ok(self.entry(&meta)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault(&error)),
        }
    }

    fn list(&self, folder: &str, most: usize) -> Result<Vec<Entry>, Fault> {
        let folder = self.path(folder);
        block_on(async {
            let mut entries = Vec::new();
            let mut all = self.store.list(Some(&folder));
            while entries.len() < most
                && let Some(meta) = all.next().await
            {
                entries.extend(self.entry(&meta.map_err(|error| fault(&error))?));
            }
            Ok(entries)
        })?
    }

    fn remove(&self, path: &str) -> Result<(), Fault> {
        match block_on(self.store.delete(&self.path(path)))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(fault(&error)),
        }
    }

    fn now(&self) -> Result<i64, Fault> {
        let path = format!("tmp/now-{:016x}", random());
        self.replace(&path, b"now")?;
        let entry = self.stat(&path);
        // Left behind, it is swept with what else is old in `tmp`.
        let _ = self.remove(&path);
        let gone = || Fault::Wrong("what was just written is not there".to_owned());
        Ok(entry?.ok_or_else(gone)?.modified)
    }
}

fn piece(file: &std::fs::File, at: u64, size: u64) -> Result<Bytes, Fault> {
    let mut bytes = vec![0; size as usize];
    read_at(file, &mut bytes, at)?;
    Ok(bytes.into())
}

/// Passes on exactly `size` bytes.
fn receive(result: GetResult, size: u64, sink: &mut dyn Write) -> Result<(), Fault> {
    let mut stream = result.into_stream();
    let mut done = 0;
    block_on(async {
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| fault(&error))?;
            done += bytes.len() as u64;
            if done > size {
                return Err(Fault::Wrong(format!("longer than {size} bytes")));
            }
            sink.write_all(&bytes)
                .map_err(|error| super::unwritten(&error))?;
        }
        if done < size {
            return Err(not_of_size(done, size));
        }
        Ok(())
    })?
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Fault> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder
            .worker_threads(1)
            .thread_name("remote")
            .enable_time();
        builder.build().ok()
    });
    match runtime {
        Some(runtime) => Ok(runtime.block_on(future)),
        None => Err(Fault::Offline("a thread could not be started".to_owned())),
    }
}

/// What an error of `object_store` comes from; its own text may show parts of addresses.
fn fault(error: &Error) -> Fault {
    match error {
        Error::NotFound { .. } => {
            return Fault::Wrong("the server does not know the bucket".to_owned());
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            return Fault::Denied("the server refused".to_owned());
        }
        Error::NotImplemented { .. } | Error::NotSupported { .. } => {
            return Fault::Unsupported("the service does not know how".to_owned());
        }
        _ => {}
    }
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(Told(fault)) = error.downcast_ref() {
            return fault.clone();
        }
        source = error.source();
    }
    Fault::Wrong("the answer could not be understood".to_owned())
}
