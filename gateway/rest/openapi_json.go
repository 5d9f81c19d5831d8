package rest

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// ordered is a JSON object whose members stay in the order in which they were put:
// a document that is written twice is the same, and reads as its author meant it.
type ordered struct{ members []member }

type member struct {
	name  string
	value any // *ordered, []any, string, bool or int
}

// put adds a member and returns the object, so that a small one is one expression.
func (o *ordered) put(name string, value any) *ordered {
	o.members = append(o.members, member{name, value})
	return o
}

// putText adds a text unless it is empty.
func (o *ordered) putText(name, text string) *ordered {
	if text != "" {
		o.put(name, text)
	}
	return o
}

func object(name string, value any) *ordered { return new(ordered).put(name, value) }

// indented writes the object as people read it, with a line feed at the end.
func (o *ordered) indented() []byte {
	var out bytes.Buffer
	// What appendOrdered has written is JSON: indenting it cannot fail.
	_ = json.Indent(&out, appendOrdered(nil, o), "", "  ")
	out.WriteByte('\n')
	return out.Bytes()
}

func appendOrdered(b []byte, value any) []byte {
	switch v := value.(type) {
	case *ordered:
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, m.name), ':')
			b = appendOrdered(b, m.value)
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendOrdered(b, item)
		}
		return append(b, ']')
	case string:
		return appendQuoted(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return append(b, "null"...)
}

func appendQuoted(b []byte, s string) []byte {
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into memory: it cannot fail
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}
