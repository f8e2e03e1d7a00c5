//! What the engine tells while it works: the only way anything leaves it.

use std::time::Duration;

use serde::Serialize;

use crate::{digest::Digest, pipeline::NodeId};

/// Something that happened. Events of one node come in this order: any number of `Held`, then `Hit`, or
/// `Started`, any number of `Items`, `Batch`, `Progress` and `Warning`, then
/// `Ran` or `Failed`; `Blocked` comes instead of all of these.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// Node instances in all.
        nodes: usize,
        /// Identity of this run in the history.
        run: String,
        /// Device of the models, in words.
        device: String,
    },
    /// A node's artifact was in the store.
    Hit {
        /// The node.
        node: NodeId,
        /// Its key.
        key: Digest,
        /// The key of the person who computed it, if it came from a shared cache.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Somebody else computes this node at this moment; it is waited for.
    Held {
        /// The node.
        node: NodeId,
        /// The person.
        who: String,
        /// Where.
        host: String,
        /// How much is done there.
        done: u64,
        /// Of how much; zero while that is not known.
        total: u64,
    },
    /// A node starts to work.
    Started {
        /// The node.
        node: NodeId,
        /// Its key.
        key: Digest,
        /// Why it runs, in a sentence.
        why: String,
    },
    /// A model is being loaded for a node.
    Loading {
        /// The node.
        node: NodeId,
        /// The model's folder, for people.
        model: String,
    },
    /// Items are known: how many, and how many of them the store had.
    Items {
        /// The node.
        node: NodeId,
        /// Items known so far.
        total: u64,
        /// Of these in the store from before.
        cached: u64,
    },
    /// A batch of items was computed and committed.
    Batch {
        /// The node.
        node: NodeId,
        /// Items in the batch.
        items: u64,
    },
    /// How far the current batch is.
    Progress {
        /// The node.
        node: NodeId,
        /// Parts done.
        done: u64,
        /// Parts in all.
        total: u64,
        /// What a part is: `tokens`, `steps`, ….
        unit: String,
    },
    /// Something a person should know; the run goes on.
    Warning {
        /// The node it concerns.
        node: Option<NodeId>,
        /// What.
        message: String,
    },
    /// A node is done.
    Ran {
        /// The node.
        node: NodeId,
        /// Its key.
        key: Digest,
        /// Time it took.
        #[serde(serialize_with = "seconds")]
        took: Duration,
        /// Items computed and items found.
        items: (u64, u64),
    },
    /// A node was computed again to compare the results.
    Audited {
        /// The node.
        node: NodeId,
        /// Whether the result is the same, byte for byte.
        same: bool,
        /// Time it took.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
    /// A node failed.
    Failed {
        /// The node.
        node: NodeId,
        /// The reason, with its causes and hint.
        message: String,
    },
    /// A node cannot run because something it needs failed.
    Blocked {
        /// The node.
        node: NodeId,
        /// The node that failed.
        by: NodeId,
    },
    /// The user asked to stop; running batches are given up.
    Stopping,
    /// The run is over.
    RunFinished {
        /// Nodes found in the store.
        hits: usize,
        /// Nodes that ran.
        ran: usize,
        /// Nodes that failed.
        failed: usize,
        /// Nodes that did not run because of a failure or a stop.
        blocked: usize,
        /// Time in all.
        #[serde(serialize_with = "seconds")]
        took: Duration,
    },
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
