package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// metaVersion is the first byte of the metadata. What a later version adds, an
	// earlier one does not read.
	metaVersion = 1
	// maxMetaText bounds each text of the metadata, in bytes: all of them and what is
	// around them stay within memberlist's 512 bytes.
	maxMetaText = 96
)

// meta is what a node tells of itself to whoever gossips with it.
type meta struct {
	Host     string `json:"h,omitempty"`
	Version  string `json:"v,omitempty"`
	Listen   string `json:"l,omitempty"`
	Admin    string `json:"a,omitempty"`
	Draining bool   `json:"d,omitempty"`
	// Life is another each time that the node joins: by it a goodbye is known to be of
	// this life, not of one before.
	Life string `json:"i"`
}

// encode is the metadata as memberlist carries it.
func (m meta) encode() []byte {
	for _, text := range []*string{&m.Host, &m.Version, &m.Listen, &m.Admin} {
		*text = shorten(*text)
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic("metadata of strings is not encoded: " + err.Error()) // never
	}
	return append([]byte{metaVersion}, text...)
}

// shorten makes a text fit for metadata.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || strings.ContainsRune(`<>&"\`, r) { // each six bytes in JSON
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	for len(s) > maxMetaText {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// decodeMeta reads what a node tells of itself, and believes nothing of it.
func decodeMeta(b []byte) (m meta, err error) {
	if len(b) == 0 || b[0] < metaVersion {
		return m, errors.New("no metadata of Sluice")
	}
	if err := json.Unmarshal(b[1:], &m); err != nil {
		return meta{}, fmt.Errorf("decode metadata: %w", err)
	}
	for _, text := range []string{m.Host, m.Version, m.Listen, m.Admin, m.Life} {
		if len(text) > maxMetaText || text != shorten(text) {
			return meta{}, fmt.Errorf("metadata has %.100q, want printable text of at most %d bytes", text, maxMetaText)
		}
	}
	if m.Life == "" {
		return meta{}, errors.New("metadata without a life")
	}
	return m, nil
}

// isNodeID tells whether a name is one that store.Node makes.
func isNodeID(name string) bool {
	return len(name) == 8 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
