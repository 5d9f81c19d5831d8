package admin

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "sluice/admin/v1"
)

var testKey = base64.StdEncoding.EncodeToString([]byte("a key of thirty-two bytes, secret"[:32]))

func TestKeysAreChangedEverywhere(t *testing.T) {
	n := startClustered(t)
	calls := map[string]func() (*connect.Response[adminv1.KeysResponse], error){
		"keys": func() (*connect.Response[adminv1.KeysResponse], error) {
			return n.cluster.ListKeys(t.Context(), connect.NewRequest(&adminv1.ListKeysRequest{}))
		},
		"add " + testKey: func() (*connect.Response[adminv1.KeysResponse], error) {
			return n.cluster.AddKey(t.Context(), connect.NewRequest(&adminv1.AddKeyRequest{Key: testKey + "\n"}))
		},
		"use 7d79": func() (*connect.Response[adminv1.KeysResponse], error) {
			return n.cluster.UseKey(t.Context(), connect.NewRequest(&adminv1.UseKeyRequest{Key: "7d79"}))
		},
		"remove " + testKey: func() (*connect.Response[adminv1.KeysResponse], error) {
			return n.cluster.RemoveKey(t.Context(), connect.NewRequest(&adminv1.RemoveKeyRequest{Key: testKey}))
		},
	}
	for want, call := range calls {
		resp, err := call()
		if err != nil {
			t.Fatal(err)
		}
		if got := n.peers.said(); got != want {
			t.Errorf("the cluster was asked %q, want %q", got, want)
		}
		wantMessage(t, resp.Msg, `{"answers": [{"node": "aaaaaaaa", "host": "gw-1", "fingerprints": ["5d41", "7d79"], "warning": "the file stays as it is"},
			{"node": "bbbbbbbb", "host": "gw-2", "problem": "no answer"}]}`)
	}
}

// What is sent as a key is not repeated: not in an error, not in a log, not in the audit
// log, not on the disk.
func TestKeysAreNowhereToBeRead(t *testing.T) {
	n := startClustered(t)
	short := testKey[:40]
	add := func(key string) error {
		_, err := n.cluster.AddKey(t.Context(), connect.NewRequest(&adminv1.AddKeyRequest{Key: key, Reason: "rotation"}))
		return err
	}
	failed := add(short)
	wantCode(t, "a short key", failed, connect.CodeInvalidArgument, "32 bytes")
	said := failed.Error()
	n.peers.fails = fmt.Errorf("no member took %s", testKey)
	failed = add(testKey)
	wantCode(t, "a key that a careless cluster repeats", failed, connect.CodeFailedPrecondition, "no member took (the key)")
	said += failed.Error()
	n.peers.fails = nil
	if err := add(testKey); err != nil {
		t.Fatal(err)
	}
	_, failed = n.cluster.UseKey(t.Context(), connect.NewRequest(&adminv1.UseKeyRequest{Key: testKey + " " + testKey}))
	wantCode(t, "two keys", failed, connect.CodeInvalidArgument, "fingerprint")
	said += failed.Error()

	lines, err := n.access.Audit(t.Context(), connect.NewRequest(&adminv1.AuditRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if len(lines.Msg.GetEntries()) != 4 {
		t.Errorf("the audit log has %d lines, want 4", len(lines.Msg.GetEntries()))
	}
	said += protojson.Format(lines.Msg) + n.log.String()
	files, err := filepath.Glob(filepath.Join(n.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // a socket has none
		said += string(text)
	}
	for _, secret := range []string{testKey, short, "a key of thirty"} {
		if strings.Contains(said, secret) {
			t.Errorf("%q can be read", secret)
		}
	}
}
