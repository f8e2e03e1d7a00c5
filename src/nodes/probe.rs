//! A kind without models for testing the engine: it joins bytes, and can be
//! slow, fail or have items as told.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    artifact::{Content, Output, Type},
    node::{Accept, Ctx, Done, Input, Inputs, Item, Keep, Kind, Node, Port},
};

/// Parameters of `probe`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Probe {
    /// Text of the artifact, before that of the inputs.
    value: String,
    /// Give `value` alone, whatever the inputs are.
    constant: bool,
    /// Strings that are items, each with a value of its own.
    items: Vec<String>,
    /// Items in a batch.
    #[schemars(range(min = 1))]
    batch: usize,
    /// Time that an item takes, or the node if it has none.
    milliseconds: u64,
    /// Fail with this message.
    fail: String,
    /// Panic with this message.
    panic: String,
}

impl Node for Probe {
    fn output(&self, _: &BTreeSet<&str>) -> Type {
        Type::Probe
    }

    fn space(&self, _: &Inputs) -> Result<Option<Value>> {
        Ok((!self.items.is_empty()).then(|| json!({"probe": 1})))
    }

    fn items(&self, _: &Inputs, _: &Done) -> Result<Vec<Item>> {
        Ok(self
            .items
            .iter()
            .map(|text| Item::new(text.as_bytes(), text.clone()))
            .collect())
    }

    fn batch(&self, asked: Option<usize>) -> usize {
        asked.unwrap_or(self.batch)
    }

    fn compute(&self, _: &Inputs, batch: &[Item], _: &Done, keep: &mut Keep<'_>, ctx: &mut Ctx<'_>) -> Result<()> {
        for (place, item) in batch.iter().enumerate() {
            if (ctx.stop)() {
                break;
            }
            sleep(Duration::from_millis(self.milliseconds));
            keep(place, item.id.to_ascii_uppercase())?;
        }
        Ok(())
    }

    fn finish(&self, inputs: &Inputs, done: &Done, _: &mut Ctx<'_>) -> Result<Output> {
        if self.items.is_empty() {
            sleep(Duration::from_millis(self.milliseconds));
        }
        if !self.fail.is_empty() {
            bail!("{}", self.fail);
        }
        assert!(self.panic.is_empty(), "{}", self.panic);
        let mut bytes = self.value.clone().into_bytes();
        for (_, value) in &done.list {
            bytes.push(b' ');
            bytes.extend(value.as_ref());
        }
        if !self.constant {
            for (_, list) in inputs.iter() {
                for input in list {
                    if let Input::Artifact { files, .. } = input {
                        bytes.push(b'(');
                        bytes.extend(files.read("probe.txt")?);
                        bytes.push(b')');
                    }
                }
            }
        }
        Ok(Output {
            r#type: Type::Probe,
            files: vec![("probe.txt".into(), Content::Bytes(bytes))],
            labels: Vec::new(),
        })
    }
}

impl Kind for Probe {
    const NAME: &'static str = "probe";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[Port {
        name: "inputs",
        accepts: &[Accept::Artifact(Type::Probe)],
        required: false,
        many: true,
        doc: "Probes whose bytes are joined.",
    }];
    const SUMMARY: &'static str = "joins bytes, for tests of the engine";
    const DOC: &'static str = "For tests of the engine. Its artifact is `probe.txt`.";
    const HIDDEN: bool = true;
}
