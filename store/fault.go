package store

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFaults is how many faults are listed; the rest is counted. A hundred fill a
// few screens, and a generated text of millions must not fill the memory.
const maxFaults = 100

// Position is a place in a text, both numbers from 1, the column in characters.
// A Column of 0 means the line, a Line of 0 the whole text.
type Position struct {
	File         string
	Line, Column int
}

// String is "file:line:column", as far as they are known.
func (p Position) String() string {
	s := printable(p.File)
	if p.Line == 0 {
		return s
	}
	s += ":" + strconv.Itoa(p.Line)
	if p.Column == 0 {
		return s
	}
	return s + ":" + strconv.Itoa(p.Column)
}

// Fault is one thing that is wrong with a text, and where.
type Fault struct {
	File         string // as it was named to Load or Parse
	Line, Column int    // from 1; 0 when the fault has no place in the text
	Field        string // the way from the object to the field: spec.rules[0].name
	Message      string
}

// String is one line: "file:line:column: field: message".
func (f Fault) String() string {
	var parts []string
	if where := (Position{f.File, f.Line, f.Column}).String(); where != "" {
		parts = append(parts, where)
	}
	if f.Field != "" {
		parts = append(parts, f.Field)
	}
	return strings.Join(append(parts, f.Message), ": ")
}

// Faults are all that is wrong, in the order of the texts. Beyond the first
// hundred the last one, without a place, tells how many more there are.
type Faults []Fault

// Error has one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// faultList gathers faults as they are found.
type faultList struct {
	found Faults
	more  int            // found when found was full
	order map[string]int // file → its turn
}

// begin gives a file its turn; its faults come before those of later files.
func (l *faultList) begin(file string) {
	if l.order == nil {
		l.order = make(map[string]int)
	}
	if _, begun := l.order[file]; !begun {
		l.order[file] = len(l.order)
	}
}

func (l *faultList) add(p Position, field, format string, args ...any) {
	if len(l.found) == maxFaults {
		l.more++
		return
	}
	l.begin(p.File)
	l.found = append(l.found, Fault{p.File, p.Line, p.Column, field, fmt.Sprintf(format, args...)})
}

// faults sorts what was found and closes the list with the count of the rest.
func (l *faultList) faults() Faults {
	slices.SortStableFunc(l.found, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(l.order[a.File], l.order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	if l.more == 0 {
		return l.found
	}
	noun := "faults"
	if l.more == 1 {
		noun = "fault"
	}
	return append(l.found, Fault{Message: fmt.Sprintf("and %d more %s", l.more, noun)})
}

// maxQuoted bounds what a message repeats of a text, in bytes.
const maxQuoted = 64

// quote repeats a piece of the text in a message: on one line, and not all of it
// when it is long.
func quote(s string) string {
	begin := head(s)
	if len(begin) < len(s) {
		return strconv.Quote(begin) + "…"
	}
	return strconv.Quote(s)
}

// short is quote without the quotes.
func short(s string) string {
	begin := head(s)
	if len(begin) < len(s) {
		return begin + "…"
	}
	return s
}

// head is the beginning of s, whole characters of it, that a message may repeat.
func head(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// printable is s itself where that is safe to print in the middle of a line.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return quote(s)
		}
	}
	return s
}
