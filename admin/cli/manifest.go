package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Objects are printed from trees of yaml.Node, which keep the order of their keys
// and become YAML or JSON.

// parseJSON reads one JSON value. Its keys stay in their order.
func parseJSON(text string) (*yaml.Node, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	return readJSON(dec)
}

func readJSON(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		n := sequence()
		if token == '{' {
			n = mapping()
		}
		for dec.More() {
			child, err := readJSON(dec)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child) // of a mapping, key and value in turn
		}
		_, err := dec.Token() // the closing one
		return n, err
	case string:
		return text(token), nil
	case json.Number:
		return number(token.String()), nil
	case bool:
		return boolean(token), nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

func mapping() *yaml.Node  { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }
func sequence() *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"} }

// oldBooleans are read as true and false by YAML 1.1, which others still speak.
var oldBooleans = []string{"y", "n", "yes", "no", "on", "off"}

func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if slices.Contains(oldBooleans, strings.ToLower(s)) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func number(s string) *yaml.Node {
	tag := "!!int"
	if strings.ContainsAny(s, ".eE") {
		tag = "!!float"
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: s}
}

func boolean(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(b)}
}

// set gives a mapping a value, in the place of the one that it has or at its end.
func set(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, text(key), value)
}

// lookup follows keys, nil when one is not there.
func lookup(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		var found *yaml.Node
		if n != nil && n.Kind == yaml.MappingNode {
			for i := 0; i < len(n.Content); i += 2 {
				if n.Content[i].Value == key {
					found = n.Content[i+1]
				}
			}
		}
		n = found
	}
	return n
}

// word is the scalar at keys, empty when there is none.
func word(n *yaml.Node, keys ...string) string {
	if n = lookup(n, keys...); n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// items are the entries of the list at keys.
func items(n *yaml.Node, keys ...string) []*yaml.Node {
	if n = lookup(n, keys...); n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

func remove(n *yaml.Node, key string) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

// arrange brings the keys of a mapping that are named to its beginning.
func arrange(n *yaml.Node, keys ...string) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	var first, rest []*yaml.Node
	for _, key := range keys {
		if value := lookup(n, key); value != nil {
			first = append(first, text(key), value)
		}
	}
	for i := 0; i < len(n.Content); i += 2 {
		if !slices.Contains(keys, n.Content[i].Value) {
			rest = append(rest, n.Content[i], n.Content[i+1])
		}
	}
	n.Content = append(first, rest...)
}

// readManifest is a manifest in the order in which a person writes one. One that the
// server left out is empty.
func readManifest(manifest string) (*yaml.Node, error) {
	if manifest == "" {
		return mapping(), nil
	}
	n, err := parseJSON(manifest)
	if err != nil {
		return nil, fmt.Errorf("read the server's manifest: %w", err)
	}
	arrange(n, "apiVersion", "kind", "metadata", "spec")
	arrange(lookup(n, "metadata"), "name", "namespace")
	return n, nil
}

// writeYAML writes documents one after the other.
func writeYAML(w io.Writer, documents ...*yaml.Node) error {
	for i, n := range documents {
		if i > 0 {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return err
			}
		}
		data, err := marshalYAML(n)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return nil
}

func marshalYAML(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// writeJSON writes one value, on several lines when indented.
func writeJSON(w io.Writer, n *yaml.Node, indented bool) error {
	data := appendJSON(nil, n)
	if indented {
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return err
		}
		data = b.Bytes()
	}
	_, err := w.Write(append(data, '\n'))
	return err
}

func appendJSON(b []byte, n *yaml.Node) []byte {
	switch n.Kind {
	case yaml.MappingNode:
		b = append(b, '{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(quoteJSON(b, n.Content[i].Value), ':')
			b = appendJSON(b, n.Content[i+1])
		}
		return append(b, '}')
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, child := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, child)
		}
		return append(b, ']')
	}
	if n.Tag == "!!str" {
		return quoteJSON(b, n.Value)
	}
	return append(b, n.Value...)
}

func quoteJSON(b []byte, s string) []byte {
	if isPlain(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into memory: it cannot fail
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}

// isPlain tells whether a text stands for itself between quotes.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
