package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// keyTime is how long a request about keys waits for the members.
const keyTime = 15 * time.Second

const (
	keyBytes = 32  // of a key
	maxKey   = 200 // bytes of a key in base64, or of a fingerprint
)

// A key comes in by a request and goes on to the cluster. It is in no answer, no error and
// no line of a log: what people see is its fingerprint.

// ListKeys asks the members what keys they have.
func (s *clusterService) ListKeys(ctx context.Context, _ *connect.Request[adminv1.ListKeysRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	return s.keys(ctx, "", "", func(ctx context.Context, c Cluster) ([]KeyAnswer, error) { return c.Keys(ctx) })
}

// AddKey makes the members understand one more key.
func (s *clusterService) AddKey(ctx context.Context, req *connect.Request[adminv1.AddKeyRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	key := strings.TrimSpace(req.Msg.GetKey())
	if !isKey(key) {
		return nil, store.Faults{{Field: "key", Message: "want 32 bytes in base64, as sluice cluster keyring generate makes them"}}
	}
	return s.keys(ctx, req.Msg.GetReason(), key, func(ctx context.Context, c Cluster) ([]KeyAnswer, error) { return c.AddKey(ctx, key) })
}

// UseKey makes the members send with a key that they have.
func (s *clusterService) UseKey(ctx context.Context, req *connect.Request[adminv1.UseKeyRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	key, err := knownKey(req.Msg.GetKey())
	if err != nil {
		return nil, err
	}
	return s.keys(ctx, req.Msg.GetReason(), key, func(ctx context.Context, c Cluster) ([]KeyAnswer, error) { return c.UseKey(ctx, key) })
}

// RemoveKey makes the members forget a key.
func (s *clusterService) RemoveKey(ctx context.Context, req *connect.Request[adminv1.RemoveKeyRequest]) (*connect.Response[adminv1.KeysResponse], error) {
	key, err := knownKey(req.Msg.GetKey())
	if err != nil {
		return nil, err
	}
	return s.keys(ctx, req.Msg.GetReason(), key, func(ctx context.Context, c Cluster) ([]KeyAnswer, error) { return c.RemoveKey(ctx, key) })
}

// isKey tells whether a text is a key.
func isKey(text string) bool {
	key, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(key) == keyBytes
}

// knownKey reads a key, or the fingerprint of one.
func knownKey(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > maxKey || !isPlain(text) {
		return "", store.Faults{{Field: "key", Message: "want a fingerprint, as the list of keys has it, or a key in base64"}}
	}
	return text, nil
}

// keys carries out what is asked of the members, and tells what each says.
func (s *clusterService) keys(ctx context.Context, reason, key string, do func(context.Context, Cluster) ([]KeyAnswer, error)) (*connect.Response[adminv1.KeysResponse], error) {
	cluster, err := s.begin(ctx, reason)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	answers, err := do(ctx, cluster)
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(without(key, err.Error())))
	}
	resp := &adminv1.KeysResponse{}
	for _, a := range answers {
		resp.Answers = append(resp.Answers, &adminv1.KeyAnswer{
			Node: a.Node, Host: a.Host, Fingerprints: a.Fingerprints,
			Warning: without(key, a.Warning), Problem: without(key, a.Problem),
		})
	}
	return connect.NewResponse(resp), nil
}

// without takes a key out of a sentence, should somebody have put it there.
func without(key, sentence string) string {
	if !isKey(key) {
		return sentence // a fingerprint is no secret
	}
	return strings.ReplaceAll(sentence, key, "(the key)")
}
