package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// allowance names cases that may be skipped, and why.
type allowance struct {
	suite   string
	pattern string // a case's id, or "**/" and the end of one
	reason  string
}

type allowances []allowance

// readSkips reads skips.txt: a suite, a pattern and a reason on each line.
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
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, fmt.Errorf("%s:%d: want a suite, a pattern and a reason", path, n)
		}
		all = append(all, allowance{fields[0], fields[1], strings.Join(fields[2:], " ")})
	}
	return all, lines.Err()
}

func (a allowance) covers(id string) bool {
	if tail, ok := strings.CutPrefix(a.pattern, "**"); ok {
		return strings.HasSuffix(id, tail)
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
