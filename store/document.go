package store

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// What one text may ask of us. A node of YAML takes 200 bytes of memory and two
// of text, so a document's size is what bounds the memory: no more than that
// is decoded at a time. No object that was ever in a Kubernetes cluster is larger than 1.5 MiB.
const (
	maxText      = 16 << 20 // bytes of one file
	maxDocument  = 2 << 20  // bytes of one document, long runs of base64 left out
	maxEncoded   = 8 << 20  // bytes of one document with them: a Schema is mostly that
	minEncoded   = 60       // bytes of a run that is long: MIME and PEM break their lines later
	maxDocuments = 50_000   // of one file
	maxAliases   = 100      // of one document
	maxRepeated  = 10_000   // nodes that all aliases of a document repeat
	maxLocated   = 16 << 10 // bytes of a document in which a syntax error is searched for
	maxUnread    = 64 << 10 // bytes of unreadable text searched for what it may declare
)

// intake reads texts into one Set, and gathers the faults of all of them.
type intake struct {
	set      Set
	declared map[string]Position // "Kind namespace/name" → where
	faults   faultList
	patterns int // instructions of all regular expressions
	// descriptors are the bytes of all Schemas.
	descriptors int
	// What could not be read, and what it declares nobody knows: the text, or,
	// when that is too much or not to be had, blind.
	unread []byte
	blind  bool
}

// document is one YAML document of a text.
type document struct {
	in       *intake
	file     string
	before   int // lines of the text that come before it
	aliases  int
	repeated int
}

func (d *document) position(n *yaml.Node) Position {
	return Position{d.file, d.before + n.Line, n.Column}
}

// read takes one text in.
func (in *intake) read(file string, data []byte) {
	in.faults.begin(file)
	if len(data) > maxText {
		in.refuse(Position{File: file}, data, "%d bytes, limit %d", len(data), maxText)
		return
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if at, problem := checkText(data); problem != "" {
		line, column := lineColumn(data[:at])
		in.refuse(Position{file, line, column}, data, "%s", problem)
		return
	}
	documents := 0
	for groups := group(split(data)); len(groups) > 0; {
		batch := groups[:batchLen(groups)]
		groups = groups[len(batch):]
		for _, c := range decodeAll(batch) {
			documents += in.readChunk(file, c, maxDocuments-documents)
			if documents > maxDocuments {
				in.faults.add(Position{file, c.before + 1, 1}, "", "more than %d documents", maxDocuments)
				return
			}
		}
	}
}

// refuse reports a text, or a part of one, that is not read at all.
func (in *intake) refuse(p Position, text []byte, format string, args ...any) {
	if len(in.unread)+len(text) > maxUnread {
		in.blind = true
	} else {
		in.unread = append(append(in.unread, text...), '\n')
	}
	in.faults.add(p, "", format, args...)
}

// readChunk returns how many documents there were, at most one above limit.
func (in *intake) readChunk(file string, c decodedChunk, limit int) int {
	if limit := documentLimit(c.text); limit > 0 {
		in.refuse(Position{file, c.before + 1, 1}, c.text, "a document of %d bytes, limit %d", len(c.text), limit)
		return 1
	}
	for n, root := range c.roots {
		if n > limit {
			return n
		}
		if object := root.Content[0]; object.ShortTag() != "!!null" { // or only comments
			d := &document{in: in, file: file, before: c.before}
			d.readObject(&value{doc: d, node: object})
		}
	}
	if c.err == nil {
		return len(c.roots)
	}
	line, column := 1, 1
	if len(in.faults.found) < maxFaults {
		line, column = c.locate(c.err)
	}
	in.refuse(Position{file, c.before + line, column}, c.text, "not YAML: %s", syntaxMessage(c.err))
	return len(c.roots) + 1
}

// documentLimit is the limit that a document exceeds, 0 for none. A run of base64 is
// one node, or a part of one, however long: it takes no more memory than text.
func documentLimit(text []byte) int {
	switch {
	case len(text) <= maxDocument:
		return 0
	case len(text) > maxEncoded:
		return maxEncoded
	case len(text)-encoded(text) > maxDocument:
		return maxDocument
	}
	return 0
}

// encoded is how many bytes are in long runs of base64, whose slashes JSON may escape.
func encoded(text []byte) int {
	total, run := 0, 0
	for _, b := range text {
		if isAlnum(b) || b == '+' || b == '/' || b == '=' || b == '\\' {
			run++
			continue
		}
		if run >= minEncoded {
			total += run
		}
		run = 0
	}
	if run >= minEncoded {
		total += run
	}
	return total
}

// checkText finds the first thing that no YAML text may hold, and its offset.
func checkText(data []byte) (at int, problem string) {
	for at < len(data) {
		if c := data[at]; c < utf8.RuneSelf {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
				return at, fmt.Sprintf("control character 0x%02x", c)
			}
			at++
			continue
		}
		r, size := utf8.DecodeRune(data[at:])
		switch {
		case r == utf8.RuneError && size == 1:
			return at, fmt.Sprintf("not UTF-8: byte 0x%02x", data[at])
		case r < 0xa0 && r != 0x85, r == 0xfeff, r == 0xfffe, r == 0xffff:
			return at, fmt.Sprintf("control character %U", r)
		}
		at += size
	}
	return at, ""
}

// lineColumn is the place right behind a text.
func lineColumn(before []byte) (line, column int) {
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// follow returns the node that an alias stands for, nil (and a fault) when it may
// not be followed. What is repeated holds no alias itself, so nothing multiplies
// and nothing contains itself.
func (d *document) follow(v *value, alias *yaml.Node) *yaml.Node {
	d.aliases++
	if d.aliases > maxAliases {
		if d.aliases == maxAliases+1 {
			v.faultAt(alias, "more than %d aliases in a document", maxAliases)
		}
		return nil
	}
	if !d.repeat(alias.Alias) {
		v.faultAt(alias, "alias %s repeats another alias, or more than %d nodes in all", quote(alias.Value), maxRepeated)
		return nil
	}
	return alias.Alias
}

func (d *document) repeat(n *yaml.Node) bool {
	d.repeated++
	if n.Kind == yaml.AliasNode || d.repeated > maxRepeated {
		return false
	}
	for _, child := range n.Content {
		if !d.repeat(child) {
			return false
		}
	}
	return true
}
