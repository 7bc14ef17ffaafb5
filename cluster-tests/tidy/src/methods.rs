//! Public methods of types: a handle has few, wherever its `impl` blocks are.
//!
//! A method is a function that takes `self`. Functions of traits, and those for one crate alone (`pub(crate)`), do not count.

use std::collections::BTreeMap;

use crate::Finding;
use crate::rules::{HANDLE_METHODS_MAX, HANDLES};
use crate::tokens::{Token, closing, tokens};

/// How many public methods each type has, in the files that were counted.
#[derive(Default)]
pub struct Counted(BTreeMap<String, usize>);

impl Counted {
    /// Counts the methods that a file declares. Finds the first of each type that is one too many.
    pub fn count(&mut self, file: &str, text: &str, findings: &mut Vec<Finding>) {
        if !HANDLES.iter().any(|prefix| file.starts_with(prefix)) {
            return;
        }
        for Method { of, line } in public_methods(&tokens(text)) {
            let count = self.0.entry(of.clone()).or_default();
            *count += 1;
            if *count == HANDLE_METHODS_MAX + 1 {
                let message = format!(
                    "`{of}` has more than {HANDLE_METHODS_MAX} public methods: give what speaks of \
                     another noun to a handle of its own"
                );
                let file = file.to_owned();
                findings.push(Finding { file, line, rule: "small-handles", message });
            }
        }
    }
}

/// A public method: the type that has it, and the line of its name.
struct Method {
    of: String,
    line: usize,
}

/// Every public method that a file declares outside its tests, in order.
fn public_methods(tokens: &[Token]) -> Vec<Method> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text != "impl" || tokens[at].in_test {
            at += 1;
            continue;
        }
        let Some(body) = tokens[at..].iter().position(|t| matches!(t.text.as_str(), "{" | ";"))
        else {
            break;
        };
        let (head, open) = (&tokens[at + 1..at + body], at + body);
        at = open + 1;
        // An `impl Trait` in a signature ends at the function's body; it has no methods of its own.
        if let Some(of) = own_type(head) {
            let end = closing(tokens, open);
            methods_in(of, &tokens[open + 1..end], &mut found);
            at = end;
        }
    }
    found
}

/// The type of an `impl` block's head; `None` if the block is a trait's, or is none.
fn own_type(head: &[Token]) -> Option<&str> {
    let mut depth = 0_usize;
    let mut name = None;
    for token in head {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" => depth = depth.saturating_sub(1),
            "for" | "(" | ")" | "=" | "&" if depth == 0 => return None,
            "where" if depth == 0 => break,
            _ if depth == 0 && token.is_name() => name = Some(token.text.as_str()),
            _ => {}
        }
    }
    name
}

fn methods_in(of: &str, body: &[Token], found: &mut Vec<Method>) {
    let mut at = 0;
    while at < body.len() {
        match body[at].text.as_str() {
            "pub" => {
                let mut next = at + 1;
                while next < body.len()
                    && matches!(body[next].text.as_str(), "const" | "async" | "unsafe" | "extern")
                {
                    next += 1;
                }
                let is_function = body.get(next).is_some_and(|t| t.text == "fn");
                if is_function && takes_self(&body[next..]) {
                    found.push(Method { of: of.to_owned(), line: body[next].line });
                }
                at = next;
            }
            "{" => at = closing(body, at),
            _ => at += 1,
        }
    }
}

/// Whether the first parameter of the function that starts here is `self`, however it is taken.
fn takes_self(function: &[Token]) -> bool {
    let Some(open) = function.iter().position(|t| t.text == "(") else { return false };
    function[open + 1..]
        .iter()
        .find(|token| !matches!(token.text.as_str(), "&" | "mut"))
        .is_some_and(|token| token.text == "self")
}
