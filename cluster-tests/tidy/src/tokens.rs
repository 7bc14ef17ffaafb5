//! Rust text as tokens: names and punctuation with their lines, comments and literals left out.
//!
//! Enough of the language to tell code from text: nested comments, raw and byte strings, character literals against
//! lifetimes. Each token knows whether it stands in code that only tests compile.

/// A name or a punctuation mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The text; `::` is one token, all other punctuation single characters.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
    /// Whether an item under `#[cfg(test)]` or `#[test]` holds it.
    pub in_test: bool,
}

impl Token {
    /// Whether this is a name or keyword.
    pub fn is_name(&self) -> bool {
        self.text.chars().next().is_some_and(|c| c == '_' || c.is_alphabetic())
    }
}

/// Splits a file into tokens.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut scanner = Scanner { chars: text.chars().collect(), at: 0, line: 1, found: Vec::new() };
    while scanner.at < scanner.chars.len() {
        scanner.step();
    }
    let mut found = scanner.found;
    mark_tests(&mut found);
    found
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    line: usize,
    found: Vec<Token>,
}

impl Scanner {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self) {
        if self.peek(0) == '\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    fn advance_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.at < self.chars.len() && keep(self.peek(0)) {
            self.advance();
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.advance_while(|c| c != '\n'),
            ('/', '*') => self.skip_comment(),
            ('"', _) => self.skip_string(),
            ('\'', _) => self.skip_character_or_lifetime(),
            (c, _) if c == '_' || c.is_alphabetic() => self.name(),
            (c, _) if c.is_ascii_digit() => self.number(),
            (':', ':') => {
                self.push("::".to_owned());
                self.advance();
                self.advance();
            }
            (c, _) if c.is_whitespace() => self.advance(),
            (c, _) => {
                self.push(c.to_string());
                self.advance();
            }
        }
    }

    fn push(&mut self, text: String) {
        self.found.push(Token { text, line: self.line, in_test: false });
    }

    fn skip_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.advance();
                }
                ('*', '/') => {
                    depth -= 1;
                    self.advance();
                    if depth == 0 {
                        self.advance();
                        return;
                    }
                }
                _ => {}
            }
            self.advance();
        }
    }

    fn skip_string(&mut self) {
        self.advance();
        while self.at < self.chars.len() && self.peek(0) != '"' {
            if self.peek(0) == '\\' {
                self.advance();
            }
            self.advance();
        }
        self.advance();
    }

    /// `r"…"` or `r#"…"#`, standing at the first `#` or quote.
    fn skip_raw_string(&mut self) {
        let start = self.at;
        self.advance_while(|c| c == '#');
        let hashes = self.at - start;
        self.advance();
        while self.at < self.chars.len() {
            let closed = self.peek(0) == '"' && (1..=hashes).all(|i| self.peek(i) == '#');
            self.advance();
            if closed {
                self.at += hashes;
                return;
            }
        }
    }

    fn skip_character_or_lifetime(&mut self) {
        self.advance();
        if self.peek(0) == '\\' {
            self.advance();
            self.advance();
            self.advance_while(|c| c != '\'');
            self.advance();
        } else if self.peek(1) == '\'' {
            self.advance();
            self.advance();
        } else {
            self.advance_while(|c| c == '_' || c.is_alphanumeric());
        }
    }

    fn name(&mut self) {
        let start = self.at;
        self.advance_while(|c| c == '_' || c.is_alphanumeric());
        let name: String = self.chars[start..self.at].iter().collect();
        let raw = self.peek(0) == '"' || (self.peek(0) == '#' && matches!(self.peek(1), '"' | '#'));
        match name.as_str() {
            "r" | "br" | "cr" if raw => self.skip_raw_string(),
            "b" | "c" if self.peek(0) == '"' => self.skip_string(),
            "b" if self.peek(0) == '\'' => self.skip_character_or_lifetime(),
            _ => self.push(name),
        }
    }

    /// A number says nothing to any rule. `1..2` must not swallow the dots.
    fn number(&mut self) {
        self.advance_while(|c| c == '_' || c.is_alphanumeric());
    }
}

/// Marks what stands under an attribute that names `test`, as in `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at + 1 < tokens.len() {
        if tokens[at].text == "#" && tokens[at + 1].text == "[" {
            let end = closing(tokens, at + 1);
            // `cfg(not(test))` is compiled when tests are not.
            let inside = &tokens[at + 1..end];
            let is_test =
                inside.iter().any(|t| t.text == "test") && !inside.iter().any(|t| t.text == "not");
            if is_test {
                let item_end = item_end(tokens, end);
                for token in &mut tokens[at..item_end] {
                    token.in_test = true;
                }
                at = item_end;
                continue;
            }
        }
        at += 1;
    }
}

/// The index behind the bracket that closes the one at `open`.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, token) in tokens[open..].iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return open + offset + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The index behind the item that starts at `from`: its body's closing brace or its semicolon.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut at = from;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at),
            _ => at += 1,
        }
    }
    tokens.len()
}
