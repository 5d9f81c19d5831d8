package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// allowance names cases that may be skipped, and why.
type allowance struct {
	suite   string
	pattern string // a case's id, or "**/" and the end of one, or the beginning and "/**"
	reason  string
}

type allowances []allowance

// readSkips reads skips.txt: a suite, a pattern and a reason on each line. A pattern with
// blanks is in quotes.
func readSkips(path string) (allowances, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read allowed skips (run this inside conformance/): %w", err)
	}
	defer file.Close()
	var all allowances
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		a, ok := parseAllowance(line)
		if !ok {
			return nil, fmt.Errorf("%s:%d: want a suite, a pattern and a reason", path, n)
		}
		all = append(all, a)
	}
	return all, lines.Err()
}

func parseAllowance(line string) (a allowance, ok bool) {
	suite, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	pattern, reason, _ := strings.Cut(rest, " ")
	if quoted, err := strconv.QuotedPrefix(rest); err == nil {
		reason = rest[len(quoted):]
		pattern, _ = strconv.Unquote(quoted)
	}
	a = allowance{suite, pattern, strings.Join(strings.Fields(reason), " ")}
	return a, a.pattern != "" && a.reason != ""
}

func (a allowance) covers(id string) bool {
	if tail, ok := strings.CutPrefix(a.pattern, "**"); ok {
		return strings.HasSuffix(id, tail)
	}
	if head, ok := strings.CutSuffix(a.pattern, "**"); ok {
		return strings.HasPrefix(id, head)
	}
	return a.pattern == id
}

// match returns the first allowance for a case of a suite.
func (all allowances) match(suite, id string) (allowance, bool) {
	for _, a := range all {
		if a.suite == suite && a.covers(id) {
			return a, true
		}
	}
	return allowance{}, false
}

// unused returns the allowances of a suite that no skipped case needed.
func (all allowances) unused(suite string, skipped []note) []allowance {
	var idle []allowance
	for _, a := range all {
		if a.suite != suite {
			continue
		}
		needed := false
		for _, c := range skipped {
			needed = needed || a.covers(c.id)
		}
		if !needed {
			idle = append(idle, a)
		}
	}
	return idle
}

// patterns returns what a suite may skip.
func (all allowances) patterns(suite string) []string {
	var out []string
	for _, a := range all {
		if a.suite == suite {
			out = append(out, a.pattern)
		}
	}
	return out
}
