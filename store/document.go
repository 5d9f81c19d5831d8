package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// What one text may ask of us. A node of YAML takes 200 bytes of memory and two
// of text, so a document's size is what bounds the memory: they are read one at a
// time. No object that was ever in a Kubernetes cluster is larger than 1.5 MiB.
const (
	maxText      = 16 << 20 // bytes of one file
	maxDocument  = 2 << 20  // bytes of one document
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
	for _, c := range split(data) {
		documents += in.readChunk(file, c, maxDocuments-documents)
		if documents > maxDocuments {
			in.faults.add(Position{file, c.before + 1, 1}, "", "more than %d documents", maxDocuments)
			return
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
func (in *intake) readChunk(file string, c chunk, limit int) int {
	if len(c.text) > maxDocument {
		in.refuse(Position{file, c.before + 1, 1}, c.text, "a document of %d bytes, limit %d", len(c.text), maxDocument)
		return 1
	}
	if isJSON(c.text) {
		c.text = unescapeJSON(c.text)
	}
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for n := 0; ; n++ {
		root, err := decodeNode(dec)
		if errors.Is(err, io.EOF) || n > limit {
			return n
		}
		if err != nil {
			line, column := 1, 1
			if len(in.faults.found) < maxFaults {
				line, column = c.locate(err)
			}
			in.refuse(Position{file, c.before + line, column}, c.text, "not YAML: %s", syntaxMessage(err))
			return n + 1
		}
		if object := root.Content[0]; object.ShortTag() != "!!null" { // or only comments
			d := &document{in: in, file: file, before: c.before}
			d.readObject(&value{doc: d, node: object})
		}
	}
}

// decodeNode reads the next document. The parser is not ours and has had panics;
// none of them may end the process.
func decodeNode(dec *yaml.Decoder) (root *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser gave up: %v", p)
		}
	}()
	root = new(yaml.Node)
	if err := dec.Decode(root); err != nil {
		return nil, err
	}
	return root, nil
}

// isJSON tells whether a document, between its markers, is JSON.
func isJSON(text []byte) bool {
	text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("---"))
	return json.Valid(bytes.TrimSuffix(text, []byte("...")))
}

// unescapeJSON writes out the two escapes of JSON that our YAML parser does not
// know: \/ and surrogate pairs. What follows them on the line is reported a few
// columns too far to the left.
func unescapeJSON(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\/`)) && !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		if text[0] != '\\' {
			out, text = append(out, text[0]), text[1:]
			continue
		}
		if text[1] == '/' {
			out, text = append(out, '/'), text[2:]
		} else if r, ok := surrogatePair(text); ok {
			out, text = utf8.AppendRune(out, r), text[12:]
		} else {
			out, text = append(out, text[:2]...), text[2:]
		}
	}
	return out
}

// surrogatePair reads the two escapes, twelve bytes, that stand for one character.
func surrogatePair(text []byte) (rune, bool) {
	if len(text) < 12 || text[1] != 'u' || text[6] != '\\' || text[7] != 'u' {
		return 0, false
	}
	high, _ := strconv.ParseUint(string(text[2:6]), 16, 16)
	low, _ := strconv.ParseUint(string(text[8:12]), 16, 16)
	r := utf16.DecodeRune(rune(high), rune(low))
	return r, r != utf8.RuneError
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

// chunk is a part of a text that is parsed by itself, so that a syntax error in
// one document leaves the others readable. It may hold several documents all the
// same, when nothing but blank lines stands between two markers.
type chunk struct {
	before int // lines of the text that come before it
	text   []byte
}

// split cuts at document markers. A line that begins with "---" or "..." is a
// marker wherever it stands (YAML 1.2, section 9.1.2), in the middle of a string too.
func split(data []byte) []chunk {
	var chunks []chunk
	start, line, first := 0, 0, 0 // offset of the chunk, number of this line, of the chunk's first
	filled := false               // the chunk has more than comments and directives
	cut := func(at, next int) {
		chunks = append(chunks, chunk{first, data[start:at]})
		start, first, filled = at, next, false
	}
	for at := 0; at < len(data); line++ {
		end := len(data)
		if n := bytes.IndexByte(data[at:], '\n'); n >= 0 {
			end = at + n + 1
		}
		text, marker := cutMarker(data[at:end], "---")
		if marker && filled {
			cut(at, line)
		}
		filled = filled || isContent(text)
		if _, ended := cutMarker(data[at:end], "..."); ended {
			cut(end, line+1)
		}
		at = end
	}
	if start < len(data) {
		cut(len(data), line)
	}
	return chunks
}

// cutMarker returns what follows on the marker's line, or the line itself.
func cutMarker(line []byte, marker string) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	if !ok || len(rest) > 0 && !bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])) {
		return line, false
	}
	return rest, true
}

func isContent(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) > 0 && line[0] != '#' && line[0] != '%'
}

var syntaxPrefix = regexp.MustCompile(`^(yaml: )?(line (\d+): )?`)

// syntaxMessage is the parser's message without its place.
func syntaxMessage(err error) string {
	message := strings.TrimPrefix(err.Error(), syntaxPrefix.FindString(err.Error()))
	if len(message) > 3*maxQuoted { // it can name an anchor of any length
		return quote(message)
	}
	return printable(message)
}

// locate finds the line and column that the parser stumbled over. The parser
// names the line on which the surrounding block begins, if any; the shortest
// beginning of the text that fails in the same way ends with the line to look at.
func (c chunk) locate(err error) (line, column int) {
	if len(c.text) > maxLocated {
		line, _ := strconv.Atoi(syntaxPrefix.FindStringSubmatch(err.Error())[3])
		return max(line, 1), 1
	}
	want := syntaxMessage(err)
	lines := bytes.SplitAfter(c.text, []byte("\n"))
	at := sort.Search(len(lines)-1, func(i int) bool {
		return firstSyntaxMessage(bytes.Join(lines[:i+1], nil)) == want
	})
	blanks := len(lines[at]) - len(bytes.TrimLeft(lines[at], " \t"))
	return at + 1, blanks + 1
}

func firstSyntaxMessage(text []byte) string {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		switch _, err := decodeNode(dec); {
		case errors.Is(err, io.EOF):
			return ""
		case err != nil:
			return syntaxMessage(err)
		}
	}
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
