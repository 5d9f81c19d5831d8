package store

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// What a regular expression may cost, in instructions of its program (some 40
// bytes each): "(a{1000}){1000}" is 15 characters long and compiles to a million.
const (
	maxPatternSize  = 10_000
	maxPatternsSize = 1_000_000 // of all texts of one Load together
)

// CompilePattern makes the matcher that a match of type RegularExpression means:
// RE2 syntax, case-sensitive, and the whole value must match. Its time is linear
// in the value's length.
func CompilePattern(pattern string) (*regexp.Regexp, error) {
	re, _, err := compilePattern(pattern)
	return re, err
}

func compilePattern(pattern string) (*regexp.Regexp, int, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, 0, patternError(err)
	}
	size := programSize(tree)
	if size > maxPatternSize {
		return nil, 0, fmt.Errorf("a program of more than %d instructions", maxPatternSize)
	}
	if strings.Contains(pattern, `\Q`) {
		pattern = tree.String() // an open \Q would quote the end of the frame too
	}
	re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, 0, patternError(err)
	}
	return re, size, nil
}

// patternError leaves out what the caller says anyhow, and most of a long pattern.
func patternError(err error) error {
	var e *syntax.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.Expr == "" {
		return errors.New(e.Code.String())
	}
	return fmt.Errorf("%s: %s", e.Code, quote(e.Expr))
}

// programSize estimates, from above and before anything is expanded, how many
// instructions a pattern compiles to; a class counts for its ranges too. Past
// maxPatternSize it stops to be exact.
func programSize(re *syntax.Regexp) int {
	size := 0
	for _, sub := range re.Sub {
		size += programSize(sub)
		if size > maxPatternSize {
			return size
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpRepeat: // the parser takes at most 1000 repetitions, so this cannot overflow
		return size*max(re.Min+1, re.Max) + max(0, re.Max-re.Min)
	}
	return size + 2 + len(re.Rune)/4
}
