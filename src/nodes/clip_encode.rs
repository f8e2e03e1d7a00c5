//! `clip_encode`: embeddings of a split's images, or of texts built from a
//! template, classes and attributes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    artifact::{Answers, Artifact, Embeddings, LabelUse, Output, Row, Type},
    models::{clip::Tower, image::Rgb8},
    node::{Accept, Complaint, Ctx, Done, Inputs, Item, Kind, Node, Pool, Port},
    nodes::template::{OneOrMany, Templates},
};

/// Raised when the numbers of one embedding change.
const ITEM_VERSION: u32 = 1;

/// Parameters of `clip_encode`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClipEncode {
    /// Templates of the texts, in minijinja: they see `class`, `class_index`,
    /// `attributes` (chosen, then the candidate), `chosen` and `candidate`.
    /// Several templates make an ensemble.
    #[serde(default)]
    prompts: OneOrMany,
    /// Leave out candidates that the class has already chosen.
    #[serde(default)]
    drop_chosen: bool,
}

/// What an image item carries: its position in the split.
struct ImageTask(usize);

/// What a text item carries.
struct TextTask(String);

impl Node for ClipEncode {
    fn output(&self, ports: &BTreeSet<&str>) -> Type {
        if ports.contains("images") {
            Type::ImageEmbeddings
        } else {
            Type::TextEmbeddings
        }
    }

    fn check(&self, ports: &BTreeSet<&str>) -> Vec<Complaint> {
        let complain = |field, message: &str, hint: &str| Complaint {
            field,
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        };
        let mut out = Vec::new();
        let texts = !self.prompts.is_empty();
        match (ports.contains("images"), texts) {
            (true, true) => out.push(complain(
                Some("prompts"),
                "a node encodes either images or texts",
                "remove `images` or `prompts`, or make two nodes of them",
            )),
            (false, false) => out.push(complain(
                None,
                "there is nothing to encode",
                "give `images` (a split such as \"cifar10.test\"), or `classes` and `prompts`",
            )),
            (false, true) if !ports.contains("classes") => out.push(complain(
                Some("prompts"),
                "texts need `classes`",
                "name a data set, a list of names, or a node: classes = \"cifar10\"",
            )),
            _ => {}
        }
        if ports.contains("images") {
            for port in ["classes", "chosen", "candidates"] {
                if ports.contains(port) {
                    out.push(Complaint {
                        field: Some(port),
                        message: format!("`{port}` has no meaning for images"),
                        hint: Some(format!("remove `{port}`")),
                    });
                }
            }
        }
        if let Err(error) = Templates::new(self.prompts.list()) {
            out.push(Complaint {
                field: Some("prompts"),
                message: format!("{error:#}"),
                hint: None,
            });
        }
        out
    }

    fn reads(&self, port: &str, ports: &BTreeSet<&str>) -> Option<&'static [&'static str]> {
        match (port, ports.contains("images")) {
            ("model", true) => Some(&["image"]),
            ("model", false) => Some(&["text"]),
            _ => None,
        }
    }

    fn pool(&self) -> Pool {
        Pool::Model
    }

    fn space(&self, inputs: &Inputs) -> Result<Option<Value>> {
        let tower = if inputs.has("images") { "image" } else { "text" };
        let model = inputs.model("model")?;
        let digest = model.part(tower)?;
        Ok(Some(json!({
            "tower": tower,
            "weights": digest,
            "dtype": model.dtype,
            "version": ITEM_VERSION,
        })))
    }

    fn items(&self, inputs: &Inputs, _: &Done) -> Result<Vec<Item>> {
        let mut seen = BTreeSet::new();
        if inputs.has("images") {
            let split = inputs.split("images")?;
            return Ok((0..split.len())
                .map(|i| (i, *split.image(i).digest().as_bytes()))
                .filter(|(_, digest)| seen.insert(*digest))
                .map(|(i, digest)| Item::new(digest, ImageTask(i)))
                .collect());
        }
        let mut items = Vec::new();
        for row in self.rows(inputs)?.0 {
            let text = row.text.unwrap_or_default();
            if seen.insert(*crate::digest::Digest::of(text.as_bytes()).as_bytes()) {
                items.push(Item::new(text.as_bytes(), TextTask(text.clone())));
            }
        }
        Ok(items)
    }

    fn batch(&self) -> usize {
        256
    }

    fn compute(
        &self,
        inputs: &Inputs,
        batch: &[Item],
        _: &Done,
        ctx: &mut Ctx<'_>,
    ) -> Result<Vec<Vec<u8>>> {
        let folder = inputs.model("model")?;
        let (embeddings, dim) = if inputs.has("images") {
            let split = inputs.split("images")?;
            let images: Vec<Rgb8> = batch
                .iter()
                .map(|item| {
                    let ImageTask(i) = item.task().context("an item of another kind")?;
                    let pixels = split.image(*i);
                    Rgb8::new(pixels.width, pixels.height, pixels.rgb)
                })
                .collect::<Result<_>>()?;
            let clip = ctx.models()?.clip(folder, Tower::Image)?;
            (clip.encode_images(&images)?, clip.embed_dim())
        } else {
            let texts: Vec<String> = batch
                .iter()
                .map(|item| {
                    let TextTask(text) = item.task().context("an item of another kind")?;
                    Ok(text.clone())
                })
                .collect::<Result<_>>()?;
            let clip = ctx.models()?.clip(folder, Tower::Text)?;
            (clip.encode_texts(&texts)?, clip.embed_dim())
        };
        ensure!(
            embeddings.len() == batch.len() * dim,
            "the model gave {} numbers for {} items of {dim}",
            embeddings.len(),
            batch.len()
        );
        ensure!(
            embeddings.iter().all(|x| x.is_finite()),
            "the model gave a number that is not finite\nhint: check the weights, or use dtype = \"f32\""
        );
        Ok(embeddings
            .chunks_exact(dim)
            .map(|row| row.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect())
    }

    fn finish(&self, inputs: &Inputs, done: &Done, _: &mut Ctx<'_>) -> Result<Output> {
        let values: BTreeMap<&[u8], &[u8]> = done
            .list
            .iter()
            .map(|(item, value)| (item.id.as_slice(), value.as_ref()))
            .collect();
        let mut data = Vec::new();
        let mut dim = 0;
        let mut push = |id: &[u8]| -> Result<()> {
            let value = values.get(id).context("an item was not computed")?;
            dim = value.len() / 4;
            data.extend(value.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            Ok(())
        };
        if inputs.has("images") {
            let split = inputs.split("images")?;
            let classes = split.classes().names().to_vec();
            let mut rows = Vec::with_capacity(split.len());
            for (i, label) in split.labels().iter().enumerate() {
                push(split.image(i).digest().as_bytes())?;
                rows.push(Row {
                    image: Some(split.image_name(i)),
                    class: classes[*label].clone(),
                    class_index: *label,
                    ..Row::default()
                });
            }
            return Embeddings {
                images: true,
                data,
                dim,
                rows,
                classes,
                labels_of: Some(LabelUse {
                    data: split.labels_digest(),
                    split: split.name().to_owned(),
                    rows: "all".to_owned(),
                }),
            }
            .output();
        }
        let (rows, classes) = self.rows(inputs)?;
        for row in &rows {
            push(row.text.as_deref().unwrap_or_default().as_bytes())?;
        }
        Embeddings {
            images: false,
            data,
            dim,
            rows,
            classes,
            labels_of: None,
        }
        .output()
    }
}

impl ClipEncode {
    /// Every text in row order (class, candidate, template), and the classes.
    fn rows(&self, inputs: &Inputs) -> Result<(Vec<Row>, Vec<String>)> {
        let templates = Templates::new(self.prompts.list())?;
        let classes = inputs.classes("classes")?;
        let chosen = inputs.attributes("chosen")?;
        let answers: Option<Answers> = inputs.has("candidates").then(|| inputs.artifact("candidates")).transpose()?;
        if let Some(answers) = &answers
            && answers.classes != classes
        {
            bail!("`candidates` were made for other classes than `classes` lists\nhint: give both nodes the same `classes`");
        }
        let mut rows = Vec::new();
        for (class_index, class) in classes.iter().enumerate() {
            let so_far = chosen.of(class);
            let candidates: Vec<Option<&str>> = match &answers {
                None => vec![None],
                Some(answers) => answers
                    .candidates(class_index)
                    .into_iter()
                    .filter(|c| !(self.drop_chosen && so_far.iter().any(|a| a == c)))
                    .map(Some)
                    .collect(),
            };
            for candidate in candidates {
                let mut attributes = so_far.to_vec();
                attributes.extend(candidate.map(str::to_owned));
                for template in 0..templates.len() {
                    let text = templates.render(
                        template,
                        &json!({
                            "class": class,
                            "class_index": class_index,
                            "attributes": attributes,
                            "chosen": so_far,
                            "candidate": candidate,
                        }),
                    )?;
                    rows.push(Row {
                        text: Some(text),
                        image: None,
                        class: class.clone(),
                        class_index,
                        attributes: attributes.clone(),
                        candidate: candidate.map(str::to_owned),
                        template: (templates.len() > 1).then_some(template),
                    });
                }
            }
        }
        Ok((rows, classes))
    }
}

impl Kind for ClipEncode {
    const NAME: &'static str = "clip_encode";
    const VERSION: u32 = 1;
    const PORTS: &'static [Port] = &[
        Port::required("model", &[Accept::Clip], "The CLIP model: an entry of `[models]`, or a `finetune` node."),
        Port::optional("images", &[Accept::Split], "The split to encode, such as `cifar10.test`."),
        Port::optional("classes", &[Accept::Classes], "Classes for which texts are made."),
        Port::optional(
            "chosen",
            &[Accept::Artifact(Type::Attributes)],
            "Attributes chosen so far; they come before the candidate.",
        ),
        Port::optional(
            "candidates",
            &[Accept::Artifact(Type::Answers)],
            "Answers whose attributes are tried, one text for each class and candidate.",
        ),
    ];
    const SUMMARY: &'static str = "embeds images, or texts made from a template, with CLIP";
    const DOC: &'static str = r#"Embeds the images of a split, or texts made from templates, with a CLIP model.
Each distinct image and each distinct text is computed once, ever: items are kept
in the store by model part, dtype and pixels (or final string), so another class,
candidate or temperature computes only what was not seen before.

Artifact: `embeddings.safetensors` (`embeddings` f32 [n, d], L2-normalised; `labels`
i64 [n] for a split), `items.jsonl` (one line a row), `classes.json`.

Example, images:

    [nodes.images]
    kind = "clip_encode"
    model = "clip"
    images = "cifar10.test"

Example, one text for each class and candidate:

    [nodes.texts]
    kind = "clip_encode"
    model = "clip"
    classes = "cifar10"
    chosen = "previous"
    candidates = "propose"
    prompts = "a photo of a {{ class }} because of {{ attributes | join(' and ') }}"
"#;
}
