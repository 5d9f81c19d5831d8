package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// keyFilePace is how often the file of keys is looked at.
const keyFilePace = 2 * time.Second

var errNoKeys = errors.New("this node has no gossip-key-file, and gossip is not encrypted")

// keyring are the keys of this node: those of its file, and what was changed since by a
// peer. Its methods may be called from any goroutine. A nil *keyring is that of a node
// without keys.
type keyring struct {
	file string
	log  *slog.Logger
	ring *memberlist.Keyring

	mu      sync.Mutex // guards the fields below
	lines   keyLines   // as the file was last read or written
	seen    fileStamp  // of the file when it was last looked at
	keys    []key      // in force, the first is used to send
	open    bool       // others than owner and group may read the file
	trouble string     // why the file does not say what is in force; empty when it does
}

// fileStamp is by what a file is known to be the same.
type fileStamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

func (s fileStamp) same(info os.FileInfo) bool {
	return s.info != nil && os.SameFile(s.info, info) && s.size == info.Size() && s.modified.Equal(info.ModTime())
}

func stampOf(info os.FileInfo) fileStamp { return fileStamp{info.ModTime(), info.Size(), info} }

// openKeyring reads the keys of a file; no file means no keys.
func openKeyring(file string, log *slog.Logger) (*keyring, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read the keys of gossip: %w", err)
	}
	lines, open, err := readKeyFile(file)
	if err != nil {
		return nil, err
	}
	r := &keyring{file: file, log: log, lines: lines, seen: stampOf(info), keys: lines.keys(), open: open}
	var raw [][]byte
	for _, k := range r.keys {
		raw = append(raw, slices.Clone(k[:]))
	}
	if r.ring, err = memberlist.NewKeyring(raw, raw[0]); err != nil {
		return nil, fmt.Errorf("use the keys of gossip: %w", err)
	}
	if open {
		log.Warn("keys of gossip may be read by every user of this machine; chmod 600 the file", "file", file)
	}
	return r, nil
}

// memberlist is what encrypts.
func (r *keyring) memberlist() *memberlist.Keyring {
	if r == nil {
		return nil
	}
	return r.ring
}

// Run reads the file anew when it changes, until ctx is done.
func (r *keyring) Run(ctx context.Context) {
	if r == nil {
		return
	}
	ticker := time.NewTicker(keyFilePace)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.look()
		}
	}
}

// look takes the keys of the file when it has changed.
func (r *keyring) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.file)
	if err == nil && r.seen.same(info) {
		return
	}
	var lines keyLines
	if err == nil {
		lines, r.open, err = readKeyFile(r.file)
	}
	if err != nil {
		if said := err.Error(); said != r.trouble { // once
			r.trouble = said
			r.log.Warn("keys of gossip not read anew; those of before stay in force", "error", err)
		}
		return
	}
	r.seen, r.lines, r.trouble = stampOf(info), lines, ""
	if keys := lines.keys(); !slices.Equal(keys, r.keys) {
		r.install(keys)
		r.log.Info("keys of gossip read anew", "keys", fingerprints(keys))
	}
}

// install has these keys in force. Its caller holds mu.
func (r *keyring) install(keys []key) {
	for _, k := range keys {
		_ = r.ring.AddKey(slices.Clone(k[:])) // of the right length
	}
	_ = r.ring.UseKey(slices.Clone(keys[0][:])) // it is there
	for _, k := range r.keys {
		if !slices.Contains(keys, k) {
			// memberlist removes in place from the list that readers of packets may be
			// going through: UseKey gives those before a list of their own.
			_ = r.ring.UseKey(slices.Clone(keys[0][:]))
			_ = r.ring.RemoveKey(slices.Clone(k[:]))
		}
	}
	r.keys = keys
}

func fingerprints(keys []key) (prints []string) {
	for _, k := range keys {
		prints = append(prints, k.fingerprint())
	}
	return prints
}

// change does to the keys of this node what it, or a peer, was asked for. It is the
// keyHolder of the exchange.
func (r *keyring) change(verb keyVerb, text string) keyReply {
	if r == nil {
		return keyReply{Err: errNoKeys}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	keys, err := r.changed(verb, text)
	if err != nil {
		return keyReply{Keys: fingerprints(r.keys), Err: err}
	}
	if !slices.Equal(keys, r.keys) {
		r.install(keys)
		r.log.Info("keys of gossip changed", "keys", fingerprints(keys))
	}
	if verb != keyList {
		r.write()
	}
	return keyReply{Keys: fingerprints(r.keys), Warning: r.trouble}
}

// changed are the keys after a change. Its caller holds mu.
func (r *keyring) changed(verb keyVerb, text string) ([]key, error) {
	switch verb {
	case keyList:
		return r.keys, nil
	case keyAdd:
		return r.added(text)
	case keyUse:
		k, err := r.named(text)
		if err != nil {
			return nil, err
		}
		others := slices.DeleteFunc(slices.Clone(r.keys), func(other key) bool { return other == k })
		return append([]key{k}, others...), nil
	case keyRemove:
		return r.removed(text)
	}
	return nil, fmt.Errorf("change %d of keys is not known here", verb)
}

func (r *keyring) added(text string) ([]key, error) {
	k, err := parseKey(strings.TrimSpace(text))
	switch {
	case err != nil:
		return nil, err
	case slices.Contains(r.keys, k):
		return r.keys, nil
	case slices.Contains(fingerprints(r.keys), k.fingerprint()):
		return nil, fmt.Errorf("another key has the fingerprint %s", k.fingerprint())
	case len(r.keys) >= maxKeys:
		return nil, fmt.Errorf("there are %d keys already, the most; remove one first", maxKeys)
	}
	return append(slices.Clone(r.keys), k), nil
}

func (r *keyring) removed(text string) ([]key, error) {
	k, err := r.named(text)
	switch {
	case errors.Is(err, errNotAKeyHere):
		return r.keys, nil
	case err != nil:
		return nil, err
	case k == r.keys[0]:
		return nil, fmt.Errorf("key %s is used to send; use another first", k.fingerprint())
	}
	return slices.DeleteFunc(slices.Clone(r.keys), func(other key) bool { return other == k }), nil
}

var errNotAKeyHere = errors.New("this node has no such key")

// named is the key that a text means: a fingerprint, or the key itself.
func (r *keyring) named(text string) (key, error) {
	print, err := printOf(text)
	if err != nil {
		return key{}, err
	}
	for _, k := range r.keys {
		if k.fingerprint() == print {
			return k, nil
		}
	}
	return key{}, errNotAKeyHere
}

// printOf is the fingerprint that somebody means, who gave it or the key.
func printOf(text string) (string, error) {
	text = strings.TrimSpace(text)
	if len(text) == 8 && strings.Trim(strings.ToLower(text), "0123456789abcdef") == "" {
		return strings.ToLower(text), nil
	}
	k, err := parseKey(text)
	if err != nil {
		return "", fmt.Errorf("want a fingerprint of 8 digits, or a key: %w", err)
	}
	return k.fingerprint(), nil
}

// write has the file say what is in force. When it cannot be written, that is in memory
// alone. Its caller holds mu.
func (r *keyring) write() {
	lines := r.lines.with(r.keys)
	if r.trouble == "" && slices.Equal(lines.keys(), r.lines.keys()) {
		return // it says so already
	}
	if err := writeKeyFile(r.file, lines); err != nil {
		r.trouble = fmt.Sprintf("the file of keys cannot be written (%v): the change is in memory alone, and lost when the node ends", err)
		r.log.Warn("keys of gossip changed in memory alone", "file", r.file, "error", err)
		return
	}
	r.lines, r.trouble = lines, ""
	if info, err := os.Stat(r.file); err == nil {
		r.seen = stampOf(info)
	}
}

// problems are what an operator should know of the keys.
func (r *keyring) problems() (told []string) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open {
		told = append(told, fmt.Sprintf("the keys of gossip in %s may be read by every user of this machine; chmod 600 it", r.file))
	}
	if r.trouble != "" {
		told = append(told, "keys of gossip: "+r.trouble)
	}
	return told
}
