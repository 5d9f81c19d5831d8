package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// keyBytes is the length of a key: AES-256.
	keyBytes = 32
	// maxKeys bounds the keys of a node: each packet of a stranger is tried with all.
	maxKeys = 8
	// maxKeyFile bounds what is read of a file of keys, in bytes.
	maxKeyFile = 64 << 10
)

// key is what encrypts gossip. It is never logged, and never answered.
type key [keyBytes]byte

// String keeps a key out of what is printed.
func (k key) String() string { return "key " + k.fingerprint() }

// fingerprint is by what people tell keys apart: the first eight digits of its SHA-256.
func (k key) fingerprint() string {
	sum := sha256.Sum256(k[:])
	return hex.EncodeToString(sum[:4])
}

func (k key) text() string { return base64.StdEncoding.EncodeToString(k[:]) }

// parseKey reads a key. The error does not repeat it.
func parseKey(text string) (k key, err error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return k, fmt.Errorf("want %d bytes in base64 (sluice cluster keyring generate makes them)", keyBytes)
	}
	if len(raw) != keyBytes {
		return k, fmt.Errorf("%d bytes in base64, want %d (sluice cluster keyring generate makes them)", len(raw), keyBytes)
	}
	return key(raw), nil
}

// keyLines are the lines of a file of keys. Those without a key are comments, which stay
// where they are when the file is written.
type keyLines []keyLine

type keyLine struct {
	text string
	key  *key
}

// parseKeys reads a file of keys: one in a line, the first is used to send.
func parseKeys(data []byte) (lines keyLines, err error) {
	for i, text := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		text = strings.TrimSpace(text)
		line := keyLine{text: text}
		if word, _, _ := strings.Cut(text, "#"); strings.TrimSpace(word) != "" {
			k, err := parseKey(strings.TrimSpace(word))
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			if slices.Contains(lines.keys(), k) {
				return nil, fmt.Errorf("line %d: key %s is there twice", i+1, k.fingerprint())
			}
			line.key = &k
		}
		lines = append(lines, line)
	}
	switch n := len(lines.keys()); {
	case n == 0:
		return nil, errors.New("no key in it")
	case n > maxKeys:
		return nil, fmt.Errorf("%d keys, want at most %d", n, maxKeys)
	}
	return lines, nil
}

func (l keyLines) keys() (keys []key) {
	for _, line := range l {
		if line.key != nil {
			keys = append(keys, *line.key)
		}
	}
	return keys
}

// with are the lines that have these keys in that order. What is not a key stays.
func (l keyLines) with(keys []key) keyLines {
	var lines keyLines
	text := map[key]string{}
	for _, line := range l {
		if line.key != nil {
			text[*line.key] = line.text
		}
	}
	next := 0
	add := func() {
		k := keys[next]
		next++
		if text[k] == "" {
			text[k] = k.text()
		}
		lines = append(lines, keyLine{text[k], &k})
	}
	for _, line := range l {
		switch {
		case line.key == nil:
			lines = append(lines, line)
		case next < len(keys):
			add()
		}
	}
	for next < len(keys) {
		add()
	}
	return lines
}

func (l keyLines) encode() []byte {
	var b bytes.Buffer
	for _, line := range l {
		b.WriteString(line.text + "\n")
	}
	return b.Bytes()
}

// readKeyFile reads a file of keys, and says whether others than its owner and group may.
func readKeyFile(name string) (lines keyLines, open bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		return nil, false, fmt.Errorf("read the keys of gossip: %w; the user that runs the node must own the file", err)
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the keys of gossip: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("read the keys of gossip: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, false, fmt.Errorf("read the keys of gossip: %w", err)
	}
	if len(data) > maxKeyFile {
		return nil, false, fmt.Errorf("read the keys of gossip from %q: more than %d KiB", name, maxKeyFile>>10)
	}
	lines, err = parseKeys(data)
	if err != nil {
		return nil, false, fmt.Errorf("read the keys of gossip from %q: %w", name, err)
	}
	return lines, info.Mode().Perm()&0o007 != 0, nil
}

// writeKeyFile has a file of keys say something else, all of it or nothing. Who owns it
// and who may read it stay.
func writeKeyFile(name string, lines keyLines) (err error) {
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".gossip-keys-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := fillKeyFile(f, info, lines.encode()); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func fillKeyFile(f *os.File, like os.FileInfo, data []byte) error {
	if owner, ok := like.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err // it would be another's file, whom it is not readable for
		}
	}
	if err := f.Chmod(like.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
