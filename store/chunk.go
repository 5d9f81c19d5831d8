package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// How chunks are decoded: nine tenths of the time that a text takes go there.
const (
	maxGroup    = 32 << 10  // bytes that are parsed in one go: each start costs 10 KiB
	maxBatch    = 256 << 10 // bytes that are decoded before any of it is read
	maxBatchLen = 100       // groups, to stop soon when there are too many
)

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

// group puts chunks together that can as well be parsed in one go. Apart are those
// that may hold an alias, a directive, the end of a document, or a line break that is
// not a line feed: what they mean, or where they are, could depend on those before.
func group(chunks []chunk) [][]chunk {
	var groups [][]chunk
	start, size, open := 0, 0, false
	for i, c := range chunks {
		plain := isPlain(c.text)
		if i > start && (!open || !plain || size+len(c.text) > maxGroup) {
			groups = append(groups, chunks[start:i])
			start, size = i, 0
		}
		size, open = size+len(c.text), plain
	}
	if start < len(chunks) {
		groups = append(groups, chunks[start:])
	}
	return groups
}

func isPlain(text []byte) bool {
	if bytes.Contains(text, []byte("\n...")) {
		return false
	}
	for _, b := range text {
		if b == '*' || b == '%' || b == '\r' || b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// batchLen is how many groups are decoded before any of it is read: few enough for
// the memory.
func batchLen(groups [][]chunk) int {
	size := 0
	for i, g := range groups {
		size += len(joined(g).text)
		if i > 0 && (size > maxBatch || i == maxBatchLen) {
			return i
		}
	}
	return len(groups)
}

// joined is a group as one chunk: its chunks follow on each other in one text.
func joined(group []chunk) chunk {
	size := 0
	for _, c := range group {
		size += len(c.text)
	}
	return chunk{group[0].before, group[0].text[:size]}
}

// decodedChunk is a chunk and its documents, up to the first that is not YAML.
type decodedChunk struct {
	chunk
	roots []*yaml.Node
	err   error
}

// decodeAll decodes groups, on all processors when there are several.
func decodeAll(groups [][]chunk) []decodedChunk {
	decoded := make([][]decodedChunk, len(groups))
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(groups)); i = next.Add(1) - 1 {
			decoded[i] = decodeGroup(groups[i])
		}
	}
	var helpers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0)-1, len(groups)/2) {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
	return slices.Concat(decoded...)
}

// decodeGroup parses a group in one go, or, when that fails, each chunk by itself.
func decodeGroup(group []chunk) []decodedChunk {
	if len(group) > 1 {
		if whole := joined(group).decode(); whole.err == nil {
			return []decodedChunk{whole}
		}
	}
	all := make([]decodedChunk, len(group))
	for i, c := range group {
		all[i] = c.decode()
	}
	return all
}

func (c chunk) decode() decodedChunk {
	if documentLimit(c.text) > 0 {
		return decodedChunk{chunk: c}
	}
	if bytes.IndexByte(c.text, '\\') >= 0 && isJSON(c.text) {
		c.text = unescapeJSON(c.text)
	}
	d := decodedChunk{chunk: c}
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for len(d.roots) <= maxDocuments {
		root, err := decodeNode(dec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			d.err = err
			break
		}
		d.roots = append(d.roots, root)
	}
	return d
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
