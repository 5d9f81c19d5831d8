package store

import (
	"regexp/syntax"
	"testing"
)

func TestCompilePatternMatchesTheWholeValue(t *testing.T) {
	tests := []struct {
		pattern, value string
		want           bool
	}{
		{"b", "abc", false},
		{"a|b", "ab", false},
		{"a|ab", "ab", true}, // leftmost-first would stop at a
		{"a|b", "b", true},
		{"^abc$", "abc", true},
		{"(?m)^a$", "a\nb", false},
		{"(?i)a", "A", true},
		{"a", "A", false},
		{"a.c", "a\nc", false},
		{`\Qa.c`, "a.c", true}, // an open quote does not swallow the end
		{`\Qa.c`, "a.cd", false},
		{`\Qa.c`, "abc", false},
		{`\Qa\E.`, "ab", true},
		{"", "", true},
		{".*", "", true},
		{`a\z`, "a", true},
	}
	for _, tt := range tests {
		re, err := CompilePattern(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		if got := re.MatchString(tt.value); got != tt.want {
			t.Errorf("%q matches %q: %v, want %v", tt.pattern, tt.value, got, tt.want)
		}
	}
}

func TestCompilePatternRefuses(t *testing.T) {
	for pattern, want := range map[string]string{
		"a)|(b":           `unexpected ): "a)|(b"`, // valid only inside of a group
		"a(?=b)":          `invalid or unsupported Perl syntax: "(?="`,
		`\1`:              `invalid escape sequence: "\\1"`,
		`\`:               "trailing backslash at end of expression",
		"(a{500}){3}":     `invalid repeat count: "{3}"`,
		"[a-z0-9]{1,900}": "",
	} {
		_, err := CompilePattern(pattern)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", pattern, got, want)
		}
	}
}

// TestProgramSizeIsNoLessThanTheProgram keeps the estimate an upper bound.
func TestProgramSizeIsNoLessThanTheProgram(t *testing.T) {
	for _, pattern := range []string{
		"", "a", "abc", "a*", "a+?b", "(a)(b)", "a|b|cd", "[a-z]+", ".", "(?s).", "^a$", `\bx`,
		"a{3}", "a{3,}", "a{2,5}", "(ab|c){4,9}", "(a?){50}", "(?i)strasse", "a{0}", "((a{5}){5}){5}",
	} {
		tree, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		const frame = 3 // fail and match, and a no-op for nothing
		if got := programSize(tree) + frame; got < len(prog.Inst) {
			t.Errorf("%q: estimated %d, has %d instructions", pattern, got, len(prog.Inst))
		}
	}
}
