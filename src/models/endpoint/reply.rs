//! A server's reply, held to the form of a finished chat answer.

use serde::Deserialize;
use serde_json::Value;

use super::fault::Problem;
use crate::models::llm::Finish;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What the model wrote, untouched; may be empty.
    pub text: String,
    /// Why it ended. Few servers tell a stop text from the model's own end: where
    /// they do not, both are [`Finish::Eos`].
    pub finish: Finish,
    /// Tokens of the prompt, where the server counts them.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, where the server counts them.
    pub completion_tokens: Option<u64>,
    /// What the server calls the model that answered.
    pub model: Option<String>,
    /// What the server says tells two states of it apart (`system_fingerprint`).
    pub fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct Completion {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    model: Option<String>,
    system_fingerprint: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
    /// vLLM: null at the model's own end, else the stop text or token.
    stop_reason: Option<Value>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// Reads the body of a reply with a good status.
pub(super) fn read(body: &[u8]) -> Result<Reply, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::passing("the reply is empty"));
    }
    let completion: Completion =
        serde_json::from_slice(body).map_err(|error| not_one(body, &error))?;
    if let Some(error) = completion.error {
        return Err(Problem::passing(format!(
            "the reply holds an error: {}",
            super::fault::message(&error).unwrap_or_else(|| error.to_string())
        )));
    }
    let choices = completion
        .choices
        .ok_or_else(|| Problem::passing("the reply has no `choices`"))?;
    let count = choices.len();
    let Ok([choice]) = <[Choice; 1]>::try_from(choices) else {
        return Err(Problem::passing(format!(
            "the reply has {count} choices where 1 was asked for"
        )));
    };
    let finish = finish(&choice)?;
    let Some(text) = choice.message.content else {
        return Err(without_content(&choice.message, finish));
    };
    let (prompt_tokens, completion_tokens) = completion.usage.map_or((None, None), |usage| {
        (usage.prompt_tokens, usage.completion_tokens)
    });
    Ok(Reply {
        text,
        finish,
        prompt_tokens,
        completion_tokens,
        model: completion.model,
        fingerprint: completion.system_fingerprint,
    })
}

/// Why a body is no answer.
fn not_one(body: &[u8], error: &serde_json::Error) -> Problem {
    let start = body.trim_ascii_start();
    if start.first() == Some(&b'<') {
        return Problem::passing("the reply is a web page, not JSON")
            .hint("does the address lead to the server's API, and does it end in `/v1`?");
    }
    if error.is_eof() {
        return Problem::passing("the reply's JSON is cut off");
    }
    if error.is_data() {
        return Problem::passing(format!("the reply is not a chat answer: {error}"));
    }
    Problem::passing(format!("the reply is not JSON: {error}"))
}

fn finish(choice: &Choice) -> Result<Finish, Problem> {
    let Some(reason) = choice.finish_reason.as_deref() else {
        return Err(Problem::passing("the reply says not why the answer ended"));
    };
    match reason {
        // vLLM and llama.cpp write `stop` for both; OpenAI's too.
        "stop" if matches!(choice.stop_reason, Some(Value::String(_))) => Ok(Finish::Stop),
        "stop" | "eos" | "eos_token" => Ok(Finish::Eos),
        "stop_sequence" => Ok(Finish::Stop),
        "length" | "max_tokens" | "model_length" => Ok(Finish::Length),
        "abort" | "error" => Err(Problem::passing(format!(
            "the server broke the answer off (`finish_reason` is `{reason}`)"
        ))),
        "content_filter" => Err(Problem::refused(
            "the server's content filter held the answer back",
        )),
        other => Err(Problem::refused(format!(
            "the answer did not end in a known way (`finish_reason` is `{}`)",
            super::fault::shortened(other)
        ))),
    }
}

fn without_content(message: &Message, finish: Finish) -> Problem {
    if let Some(refusal) = &message.refusal {
        return Problem::refused(format!(
            "the model refused to answer: {}",
            super::fault::shortened(refusal)
        ));
    }
    let reasoned = message.reasoning_content.is_some() || message.reasoning.is_some();
    if reasoned && finish == Finish::Length {
        return Problem::refused(
            "the model spent all its tokens on reasoning, and wrote no answer",
        )
        .hint("raise `max_tokens`, or switch reasoning off at the server");
    }
    Problem::passing("the reply has no text (`content` is null)")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = r#"{"id":"x","object":"chat.completion","model":"m-1","choices":[
        {"index":0,"message":{"role":"assistant","content":"hi ü"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

    fn with(from: &str, to: &str) -> Result<Reply, Problem> {
        assert!(GOOD.contains(from), "{from}");
        read(GOOD.replace(from, to).as_bytes())
    }

    #[test]
    fn a_finished_answer_is_read_whole() {
        assert_eq!(
            read(GOOD.as_bytes()).unwrap(),
            Reply {
                text: "hi ü".to_owned(),
                finish: Finish::Eos,
                prompt_tokens: Some(9),
                completion_tokens: Some(2),
                model: Some("m-1".to_owned()),
                fingerprint: None,
            }
        );
        assert_eq!(with("\"hi ü\"", "\"\"").unwrap().text, "");
        let of = with("\"id\":\"x\"", "\"system_fingerprint\":\"fp_1\"").unwrap();
        assert_eq!(of.fingerprint.as_deref(), Some("fp_1"));
        let bare =
            br#"{"choices":[{"message":{"content":"a"},"finish_reason":"length"}],"usage":null}"#;
        let bare = read(bare).unwrap();
        assert_eq!(
            (bare.finish, bare.prompt_tokens, bare.model),
            (Finish::Length, None, None)
        );
    }

    #[test]
    fn a_stop_text_is_told_apart_where_the_server_does() {
        let stop = "\"finish_reason\":\"stop\"";
        let vllm = with(stop, "\"finish_reason\":\"stop\",\"stop_reason\":\"\\n\"");
        assert_eq!(vllm.unwrap().finish, Finish::Stop);
        let vllm = with(stop, "\"finish_reason\":\"stop\",\"stop_reason\":null");
        assert_eq!(vllm.unwrap().finish, Finish::Eos);
        let tgi = with(stop, "\"finish_reason\":\"stop_sequence\"");
        assert_eq!(tgi.unwrap().finish, Finish::Stop);
    }

    #[test]
    fn what_is_not_of_the_form_may_pass_and_is_never_an_answer() {
        for (body, reason) in [
            ("", "the reply is empty"),
            (" \r\n", "the reply is empty"),
            ("<html>busy</html>", "the reply is a web page, not JSON"),
            ("busy", "the reply is not JSON"),
            ("{}", "the reply has no `choices`"),
            ("[]", "the reply is not a chat answer"),
            (
                r#"{"error":{"message":"out of memory"}}"#,
                "the reply holds an error: out of memory",
            ),
            (r#"{"choices":[]}"#, "the reply has 0 choices"),
        ] {
            let problem = read(body.as_bytes()).unwrap_err();
            assert!(problem.reason.starts_with(reason), "{body}: {problem:?}");
            assert!(problem.is_passing(), "{body}");
        }
        for (from, to) in [
            ("\"hi ü\"", "null"),
            ("\"hi ü\"", "7"),
            ("\"hi ü\"", "[\"hi\"]"),
            ("\"stop\"", "null"),
            ("\"stop\"", "\"abort\""),
            ("\"model\":\"m-1\"", "\"model\":1"),
            ("\"prompt_tokens\":9", "\"prompt_tokens\":-9"),
            (
                "\"content\":\"hi ü\"",
                "\"content\":\"a\",\"content\":\"b\"",
            ),
            ("\"id\":\"x\"", "\"error\":{\"code\":500}"),
        ] {
            assert!(with(from, to).unwrap_err().is_passing(), "{to}");
        }
        for cut in 0..GOOD.len() {
            assert!(read(&GOOD.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_answer_that_was_held_back_is_not_asked_again() {
        for (from, to, reason) in [
            (
                "\"stop\"",
                "\"content_filter\"",
                "the server's content filter",
            ),
            (
                "\"stop\"",
                "\"tool_calls\"",
                "the answer did not end in a known way",
            ),
            (
                "\"content\":\"hi ü\"",
                "\"content\":null,\"refusal\":\"no\"",
                "the model refused to answer: no",
            ),
        ] {
            let problem = with(from, to).unwrap_err();
            assert!(problem.reason.starts_with(reason), "{problem:?}");
            assert!(!problem.is_passing(), "{to}");
        }
        let thought = br#"{"choices":[{"message":{"content":null,"reasoning":"hm"},"finish_reason":"length"}]}"#;
        assert!(read(thought).unwrap_err().reason.contains("reasoning"));
    }

    proptest! {
        #[test]
        fn no_damaged_reply_makes_it_panic(at in 0usize..250, put in "[\\{\\}\\[\\]\",:0-9a-z\\\\]{0,4}") {
            let at = (0..=at.min(GOOD.len())).rev().find(|&i| GOOD.is_char_boundary(i)).unwrap_or(0);
            let _ = read(format!("{}{put}{}", &GOOD[..at], &GOOD[at..]).as_bytes());
        }
    }
}
