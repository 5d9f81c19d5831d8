package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// contextList are the servers that a user has given names, in a file of the user's.
type contextList struct {
	Current string         `yaml:"current,omitempty"` // the one that is meant when nothing else is said
	List    []namedContext `yaml:"contexts"`
}

// namedContext is one server and how to be let in.
type namedContext struct {
	Name        string `yaml:"name"`
	Server      string `yaml:"server"` // as --server has it
	Token       string `yaml:"token,omitempty"`
	CAFile      string `yaml:"caFile,omitempty"`
	Fingerprint string `yaml:"fingerprint,omitempty"` // of the server's certificate
}

func (l *contextList) index(name string) int {
	return slices.IndexFunc(l.List, func(c namedContext) bool { return c.Name == name })
}

func (l *contextList) names() []string {
	var names []string
	for _, c := range l.List {
		names = append(names, c.Name)
	}
	return names
}

// put adds a context or replaces the one of that name.
func (l *contextList) put(c namedContext) {
	if i := l.index(c.Name); i >= 0 {
		l.List[i] = c
		return
	}
	l.List = append(l.List, c)
}

func (p *program) contextsFile() (string, error) {
	dir := p.ConfigDir
	if dir == "" {
		user, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("find the contexts: %w; set HOME, or use --server", err)
		}
		dir = filepath.Join(user, "sluice")
	}
	return filepath.Join(dir, "contexts.yaml"), nil
}

// contexts reads the file; without one there are no contexts.
func (p *program) contexts() (*contextList, error) {
	known := &contextList{}
	file, err := p.contextsFile()
	if err != nil {
		return known, nil // a service may have no home, and then it has no contexts
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(known); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read contexts: %s: %w", file, err)
	}
	return known, nil
}

// saveContexts replaces the file, which has tokens in it: it is for its owner alone.
func (p *program) saveContexts(known *contextList) error {
	file, err := p.contextsFile()
	if err != nil {
		return err
	}
	data, err := yaml.Marshal(known)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".contexts-*") // 0600
	if err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	defer os.Remove(f.Name()) // nothing, once it has its name
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	return nil
}

func (p *program) targetOfContext(name string) (*target, error) {
	known, err := p.contexts()
	if err != nil {
		return nil, err
	}
	i := known.index(name)
	if i < 0 {
		return nil, known.unknown(name)
	}
	return known.List[i].target()
}

func (n *namedContext) target() (*target, error) {
	at, err := parseServer("context "+n.Name, n.Server)
	if err != nil {
		return nil, err
	}
	at.context, at.token, at.caFile, at.fingerprint = n.Name, n.Token, n.CAFile, n.Fingerprint
	return at, nil
}

func (l *contextList) unknown(name string) error {
	if len(l.List) == 0 {
		return usageErrorf("no context %q: there are none yet; sluice login and sluice context add make them", name)
	}
	return usageErrorf("no context %q; known are %s", name, strings.Join(l.names(), ", "))
}
