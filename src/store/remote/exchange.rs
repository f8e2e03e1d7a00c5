//! The exchanges that `object_store` asks for, made with [`Wire`] on the thread that asks.
//!
//! It sees the bare answers, and doubts them: what is no entry, no list or no success never gets
//! as far as `object_store`, which would take a login page for an empty list.

use std::{
    error::Error as StdError,
    fmt,
    io::{Read, Take},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::{
    ClientConfigKey, ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpResponseBody, HttpService,
    },
};

use super::{
    Fault, PIECE, collect,
    wire::{Paced, Trouble, Wire, broken, check_body, code, is_beside, refusal},
};

/// Longer answers that are no entries are refused; a list has at most 5,000 entries.
const LONGEST: u64 = 32 << 20;

/// A fault on its way through `object_store`.
#[derive(Debug)]
pub(super) struct Told(pub(super) Fault);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for Told {}

fn told(kind: HttpErrorKind, fault: Fault) -> HttpError {
    HttpError::new(kind, Told(fault))
}

/// Makes `object_store` use a wire.
#[derive(Debug)]
pub(super) struct Connector(pub(super) Arc<Wire>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        Ok(HttpClient::new(Service {
            wire: Arc::clone(&self.0),
            plain: plain.as_deref() == Some("true"),
        }))
    }
}

/// Exchanges for `object_store`, made at once on the thread that asks.
#[derive(Debug)]
struct Service {
    wire: Arc<Wire>,
    /// Whether connections that anybody on the way can read are allowed.
    plain: bool,
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.exchange(request)
    }
}

impl Service {
    fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        if !self.plain && parts.uri.scheme_str() != Some("https") {
            let text = "plain `http` is not allowed unless `AWS_ALLOW_HTTP=true` \
                        (`GOOGLE_…`, `AZURE_…`) is in the environment";
            return Err(told(HttpErrorKind::Unknown, Fault::Denied(text.to_owned())));
        }
        let reads = parts.method == "GET";
        let lists = reads && parts.uri.query().is_some_and(asks_for_list);
        let ranged = parts.headers.contains_key("range");
        let beside = is_beside(parts.uri.host().unwrap_or_default());
        let size = body.content_length() as u64;
        let sends = size > 0 || ["PUT", "POST"].contains(&parts.method.as_str());
        let mut body = Pieces(body, Bytes::new());
        let sent = self.wire.send(parts, sends.then_some((&mut body, size)));
        let mut response = sent.map_err(|(trouble, fault)| match (trouble, fault) {
            _ if beside => no_credentials(),
            (Trouble::Unsent, fault) => told(HttpErrorKind::Connect, fault),
            (Trouble::Unknown, fault) => told(HttpErrorKind::Interrupted, fault),
            (Trouble::Nonsense, fault) => told(HttpErrorKind::Decode, fault),
        })?;
        let status = response.status().as_u16();
        match status {
            200..=299 => {
                if reads {
                    check_body(status, response.headers(), ranged)
                        .map_err(|fault| told(HttpErrorKind::Decode, fault))?;
                }
                let (parts, body) = response.into_parts();
                if lists {
                    let mut body = Paced::new(body, &self.wire.limits);
                    return match list(&mut body) {
                        Ok(list) => Ok(HttpResponse::from_parts(parts, list.into())),
                        Err(fault @ Fault::Offline(_)) => {
                            Err(told(HttpErrorKind::Interrupted, fault))
                        }
                        Err(fault) => Err(told(HttpErrorKind::Decode, fault)),
                    };
                }
                let hint = body.content_length().unwrap_or(PIECE as u64);
                let hint = hint.clamp(1, PIECE as u64) as usize;
                let most = if reads { u64::MAX } else { LONGEST };
                let body = Paced::new(body, &self.wire.limits).take(most);
                let body = Answer(Mutex::new(body), hint);
                Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
            }
            // One that is busy is asked again, as any server is.
            400 | 401 | 403 | 404 if beside => Err(no_credentials()),
            // What these mean depends on the question, which `object_store` knows.
            304 | 412 => Ok(response.map(|_| Bytes::new().into())),
            404 | 409 => {
                let code = code(&mut response).unwrap_or_default();
                match code.as_str() {
                    "NoSuchBucket" | "ContainerNotFound" => Err(told(
                        HttpErrorKind::Decode,
                        Fault::Wrong(format!("the server does not know the bucket ({code})")),
                    )),
                    "ConditionalRequestConflict" | "OperationAborted" => Err(told(
                        HttpErrorKind::Request,
                        Fault::Offline(format!("the server is too busy ({code})")),
                    )),
                    _ => Ok(response.map(|_| Bytes::new().into())),
                }
            }
            _ => {
                let fault = refusal(status, &mut response);
                // Only what is offline is worth another attempt.
                let kind = match fault {
                    Fault::Offline(_) => HttpErrorKind::Request,
                    _ => HttpErrorKind::Decode,
                };
                Err(told(kind, fault))
            }
        }
    }
}

/// What is said where the machine itself was asked for credentials, in vain.
fn no_credentials() -> HttpError {
    let text = "no credentials are in the environment or in the files of the service's own tool, \
                and this machine offers none\n\
                hint: `runner remote add --help` says where they belong";
    told(HttpErrorKind::Unknown, Fault::Denied(text.to_owned()))
}

/// Whether a query asks for a list, in the dialect of S3 and Google or in that of Azure.
fn asks_for_list(query: &str) -> bool {
    let mut parts = query.split('&');
    parts.any(|part| part == "list-type=2" || part == "comp=list")
}

/// The text of a list that is one, and whole: `object_store` takes any page for an empty list.
fn list(body: &mut Paced) -> Result<Vec<u8>, Fault> {
    let text = collect(body, LONGEST, 0, broken)?;
    let has = |part: &str| {
        text.windows(part.len())
            .any(|window| window == part.as_bytes())
    };
    let kinds = ["ListBucketResult", "EnumerationResults"];
    if kinds
        .iter()
        .any(|kind| has(&format!("<{kind}")) && has(&format!("</{kind}>")))
    {
        Ok(text)
    } else {
        Err(Fault::Wrong("the list makes no sense".to_owned()))
    }
}

/// The body of a request, read piece by piece.
struct Pieces(HttpRequestBody, Bytes);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        while self.1.is_empty() {
            // It is all in memory, and therefore always ready.
            match Pin::new(&mut self.0).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => self.1 = frame.into_data().unwrap_or_default(),
                _ => return Ok(0),
            }
        }
        let count = buffer.len().min(self.1.len());
        buffer[..count].copy_from_slice(&self.1.split_to(count));
        Ok(count)
    }
}

/// The body of an answer, read in pieces of this size when it is asked for.
struct Answer(Mutex<Take<Paced>>, usize);

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Self(reader, size) = self.get_mut();
        let reader = reader.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut piece = vec![0; *size];
        let mut filled = 0;
        while filled < piece.len() {
            match reader.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => {
                    let error = told(HttpErrorKind::Interrupted, broken(&error));
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        piece.truncate(filled);
        Poll::Ready((filled > 0).then(|| Ok(Frame::data(piece.into()))))
    }
}
