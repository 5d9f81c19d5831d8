package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// maxText is how much the server takes of one text, in bytes; it says so better
// than we could, so this only keeps the memory in bounds.
const maxText = 64 << 20

// manifests are the texts that the user named, as one: a request is all or
// nothing, whatever the number of files.
type manifests struct {
	text  string
	name  string // of the text, for the server
	parts []part
}

// part is one file of the text.
type part struct {
	file   string // as the user named it
	before int    // lines of the text that come before it
}

// readManifests reads files, folders (every *.yaml, *.yml and *.json in them, in
// the order of their names), and standard input for -.
func readManifests(paths []string, stdin io.Reader) (*manifests, error) {
	if len(paths) == 0 {
		return nil, usageErrorf("nothing to read; give a file or a folder with -f, or -f - for standard input")
	}
	m := &manifests{}
	var all bytes.Buffer
	for _, path := range paths {
		files, err := expand(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := m.add(&all, file, stdin); err != nil {
				return nil, err
			}
		}
	}
	if len(m.parts) == 0 {
		return nil, fmt.Errorf("no *.yaml, *.yml or *.json in %s", strings.Join(paths, ", "))
	}
	m.text = all.String()
	m.name = m.folderName()
	return m, nil
}

// expand is the file itself, or those of a folder that serve would read.
func expand(path string) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, openError(path, err)
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, openError(path, err)
	}
	var files []string
	for _, entry := range entries {
		name := filepath.Join(path, entry.Name())
		if !store.InFolder(entry.Name()) {
			continue
		}
		// A mounted ConfigMap is made of links to files: what counts is the target.
		if info, err := os.Stat(name); err != nil {
			return nil, openError(name, err)
		} else if info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return files, nil
}

// openError names the file once.
func openError(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", path, pathCause(err))
}

// pathCause is what is wrong with a file, without its name.
func pathCause(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func (m *manifests) add(all *bytes.Buffer, file string, stdin io.Reader) error {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return openError(file, err)
		}
		defer f.Close()
		in = f
	}
	if all.Len() > 0 {
		if !bytes.HasSuffix(all.Bytes(), []byte("\n")) {
			all.WriteByte('\n')
		}
		all.WriteString("---\n")
	}
	m.parts = append(m.parts, part{file, bytes.Count(all.Bytes(), []byte("\n"))})
	room := int64(maxText - all.Len())
	read, err := all.ReadFrom(io.LimitReader(in, room+1))
	switch {
	case err != nil:
		return openError(file, err)
	case read > room:
		return fmt.Errorf("read %s: more than %d bytes in all, limit %[2]d", file, maxText)
	}
	return checkUTF8(file, all.Bytes()[int64(all.Len())-read:])
}

// checkUTF8 says where a text is none that a request can carry.
func checkUTF8(file string, text []byte) error {
	line, column, message := notUTF8(text)
	if message == "" {
		return nil
	}
	return fmt.Errorf("%s:%d:%d: %s", file, line, column, message)
}

// notUTF8 finds the first byte that is no UTF-8; there is no message when there is none.
func notUTF8(text []byte) (line, column int, message string) {
	if utf8.Valid(text) {
		return 0, 0, ""
	}
	at := 0
	for at < len(text) {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size < 2 {
			break
		}
		at += size
	}
	line = 1 + bytes.Count(text[:at], []byte("\n"))
	column = 1 + utf8.RuneCount(text[1+bytes.LastIndexByte(text[:at], '\n'):at])
	return line, column, fmt.Sprintf("not UTF-8: byte %#02x; save the file as UTF-8", text[at])
}

// folderName is what the server is told of where the text is from: certificates
// that it names are relative to that folder, which a server on this machine finds
// by its full path.
func (m *manifests) folderName() string {
	first := m.parts[0].file
	full, err := filepath.Abs(first)
	if first == "-" || err != nil {
		return first
	}
	return full
}

// place turns the place of a fault back into one of the user's files.
func (m *manifests) place(f *adminv1.Fault) {
	if f.GetFile() != m.name {
		return
	}
	of := m.parts[0]
	for _, p := range m.parts[1:] {
		if int(f.GetLine()) > p.before {
			of = p
		}
	}
	f.File = of.file
	if f.GetLine() > 0 {
		f.Line -= uint32(of.before)
	}
}

// shortened makes a sentence of the server speak of the user's files.
func (m *manifests) shortened(s string) string {
	if m.name == "" || m.name == m.parts[0].file {
		return s
	}
	return strings.ReplaceAll(s, m.name, m.parts[0].file)
}

// spoken is a response in whose warnings the user's files have their names.
func (m *manifests) spoken(w *adminv1.WriteResponse) *adminv1.WriteResponse {
	for i, warning := range w.GetWarnings() {
		w.Warnings[i] = m.shortened(warning)
	}
	return w
}

// withoutRevisions is the text as it would be applied whatever is there.
func (m *manifests) withoutRevisions() (string, error) {
	var out strings.Builder
	dec := yaml.NewDecoder(strings.NewReader(m.text))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil || len(n.Content) == 0 {
			return "", cmp.Or(err, errors.New("an empty document"))
		}
		root := n.Content[0]
		for _, object := range append(items(root, "items"), root) {
			remove(lookup(object, "metadata"), "resourceVersion")
		}
		data, err := marshalYAML(root)
		if err != nil {
			return "", err
		}
		out.WriteString("---\n")
		out.Write(data)
	}
}

// head is what a manifest says of itself.
type head struct {
	Kind     string `yaml:"kind"`
	Metadata struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"metadata"`
	Items []head `yaml:"items"`
}

// refs are the objects that the text declares, in an order in which they can be
// deleted: what refers to others comes before them.
func (m *manifests) refs() ([]*adminv1.Ref, error) {
	var found []*adminv1.Ref
	dec := yaml.NewDecoder(strings.NewReader(m.text))
	for {
		var h head
		err := dec.Decode(&h)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", m.parts[0].file, err)
		}
		for _, one := range append(h.Items, h) {
			if one.Metadata.Name != "" {
				found = append(found, &adminv1.Ref{
					Kind: one.Kind, Namespace: cmp.Or(one.Metadata.Namespace, defaultNamespace), Name: one.Metadata.Name,
				})
			}
		}
	}
	rank := func(ref *adminv1.Ref) int {
		return slices.IndexFunc(kinds, func(k kind) bool { return k.name == ref.GetKind() })
	}
	slices.SortStableFunc(found, func(a, b *adminv1.Ref) int { return cmp.Compare(rank(a), rank(b)) })
	return found, nil
}
