package main

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestParseShimRequestTakesTLSOffTheServerBehind(t *testing.T) {
	var plain []byte
	plain = protowire.AppendTag(plain, 1, protowire.VarintType) // protocol
	plain = protowire.AppendVarint(plain, 2)
	plain = protowire.AppendTag(plain, 6, protowire.VarintType) // message_receive_limit
	plain = protowire.AppendVarint(plain, 1024)

	var creds []byte
	creds = protowire.AppendTag(creds, credsCert, protowire.BytesType)
	creds = protowire.AppendString(creds, "cert")
	creds = protowire.AppendTag(creds, credsKey, protowire.BytesType)
	creds = protowire.AppendString(creds, "key")

	raw := protowire.AppendTag(nil, requestUseTLS, protowire.VarintType)
	raw = protowire.AppendVarint(raw, 1)
	raw = protowire.AppendTag(raw, requestClientCert, protowire.BytesType)
	raw = protowire.AppendString(raw, "authority")
	raw = append(raw, plain...)
	raw = protowire.AppendTag(raw, requestCreds, protowire.BytesType)
	raw = protowire.AppendBytes(raw, creds)

	got, err := parseShimRequest(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !got.secure || string(got.clientCA) != "authority" || string(got.cert) != "cert" || string(got.key) != "key" {
		t.Errorf("got %+v", got)
	}
	if !bytes.Equal(got.plain, plain) {
		t.Errorf("got %x for the server behind, want %x", got.plain, plain)
	}
}

func TestParseShimRequestRefusesATruncatedMessage(t *testing.T) {
	if _, err := parseShimRequest([]byte{requestCreds<<3 | 2, 9, 'x'}); err == nil {
		t.Error("got no error")
	}
}

func TestReadDelimitedRefusesAHugeMessage(t *testing.T) {
	if _, err := readDelimited(bytes.NewReader([]byte{0xff, 0, 0, 0})); err == nil {
		t.Error("got no error")
	}
}
