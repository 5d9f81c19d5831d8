package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluice/gateway/wire"
)

// outboundCode is the code of an answer that says no better one.
func outboundCode(status int) wire.Code {
	if code := wire.FromREST(status); code != wire.OK {
		return code
	}
	return wire.Unknown // a redirection, say: no success of the RPC
}

// answerType is the message that the body of an answer is.
func (o *Outbound) answerType() protoreflect.MessageDescriptor {
	switch {
	case o.answer == nil:
		return o.method.Descriptor.Output()
	case o.answer.IsList():
		return nil
	}
	return o.answer.Message()
}

// message is an answer's body as a message of the method. Fields that the message does
// not have are dropped: a backend may say more than is asked for.
func (o *Outbound) message(response *http.Response, body []byte, l Limits) ([]byte, *wire.Status) {
	if isHTTPBody(o.answerType()) {
		return o.rawMessage(response, body), nil
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return []byte{}, nil
	}
	if said := response.Header.Get("Content-Type"); !isJSONType(said) {
		return nil, refusal(wire.Internal, "the backend answered with Content-Type %q: want application/json", clip(said))
	}
	if o.answer != nil {
		if !json.Valid(body) {
			return nil, refusal(wire.Internal, "the backend's answer is no JSON")
		}
		name := appendQuoted([]byte{'{'}, o.answer.JSONName())
		body = append(append(append(name, ':'), body...), '}')
	}
	l.IgnoreUnknownFields = true
	data, err := FromJSON(nil, o.method.Output, body, o.method.Schema, l)
	if err != nil {
		return nil, refusal(wire.Internal, "the backend's answer: %s", plainMessage(err))
	}
	return data, nil
}

// rawMessage is a google.api.HttpBody, or the message that has it as a field.
func (o *Outbound) rawMessage(response *http.Response, body []byte) []byte {
	raw := protowire.AppendTag(nil, 1, protowire.BytesType)
	raw = protowire.AppendString(raw, strings.ToValidUTF8(response.Header.Get("Content-Type"), "�"))
	raw = protowire.AppendTag(raw, 2, protowire.BytesType)
	raw = protowire.AppendBytes(raw, body)
	if o.answer == nil {
		return raw
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, o.answer.Number(), protowire.BytesType), raw)
}

// isJSONType tells whether a content type is one of JSON; none may be.
func isJSONType(said string) bool {
	if said == "" {
		return true
	}
	base, _, err := mime.ParseMediaType(said)
	return err == nil && (base == mediaJSON || base == "text/json" || strings.HasSuffix(base, "+json"))
}

// failure is what an answer that is no success says: a google.rpc.Status in JSON, as
// it stands or as the member "error", with code, message and details; else the code of
// the HTTP status, with what of the body reads as a message.
func (o *Outbound) failure(response *http.Response, body []byte) *wire.Status {
	st := &wire.Status{Code: outboundCode(response.StatusCode)}
	said := statusBody{}
	if isJSONType(response.Header.Get("Content-Type")) {
		said.read(body)
	}
	if code, ok := said.code(); ok {
		st.Code = code
	}
	st.Message = said.Message
	if st.Message == "" {
		st.Message = fmt.Sprintf("sluice: the backend answered HTTP %s", statusWords(response))
	}
	o.addDetails(st, said.Details, response)
	return st
}

func statusWords(response *http.Response) string {
	words := strings.TrimSpace(strconv.Itoa(response.StatusCode) + " " + http.StatusText(response.StatusCode))
	if to := response.Header.Get("Location"); to != "" && response.StatusCode/100 == 3 {
		words += ", which leads to " + strconv.Quote(clip(to)) + ": redirections are not followed"
	}
	return words
}

// Bounds of what is kept of an error, bytes. It becomes header fields, of which clients
// take between 8 KiB and 16 MiB.
const (
	maxFailureMessage = 1024
	maxFailureDetails = 32 << 10 // in JSON
)

// statusBody is a google.rpc.Status in JSON, or what looks like one.
type statusBody struct {
	Code    json.RawMessage
	Status  string // NOT_FOUND, where code is that of HTTP
	Message string
	Details []json.RawMessage
}

// read reads a body; what of it is not understood is left out.
func (s *statusBody) read(body []byte) {
	var outer, inner failureBody
	if json.Unmarshal(body, &outer) != nil {
		return
	}
	fields := &outer
	if json.Unmarshal(outer.Error, &inner) == nil && isFilled(outer.Error) {
		fields = &inner
	}
	s.Code, s.Status = fields.Code, textOf(fields.Status)
	s.Details = someDetails(fields.Details)
	for _, text := range []json.RawMessage{fields.Message, fields.Description, fields.Detail, fields.Title, fields.Error} {
		if s.Message = textOf(text); s.Message != "" {
			break
		}
	}
	if len(s.Message) > maxFailureMessage {
		cut := maxFailureMessage
		for !utf8.RuneStart(s.Message[cut]) {
			cut--
		}
		s.Message = s.Message[:cut] + "…"
	}
}

// failureBody are the members of an error that are looked at. Of the others, of which
// there may be any number, nothing is kept.
type failureBody struct {
	Code, Status, Details, Message, Detail, Title, Error json.RawMessage
	Description                                          json.RawMessage `json:"error_description"`
}

// isFilled tells an object that has members.
func isFilled(raw json.RawMessage) bool {
	inside, ok := bytes.CutPrefix(bytes.TrimSpace(raw), []byte("{"))
	return ok && len(bytes.TrimSpace(inside)) > 1
}

// someDetails are the first elements of an array, as far as they may be kept.
func someDetails(raw json.RawMessage) (details []json.RawMessage) {
	in := json.NewDecoder(bytes.NewReader(raw))
	if t, _ := in.Token(); t != json.Delim('[') {
		return nil
	}
	for size := 0; in.More(); {
		var one json.RawMessage
		if in.Decode(&one) != nil {
			break
		}
		if size += len(one); size > maxFailureDetails {
			break
		}
		details = append(details, one)
	}
	return details
}

func textOf(raw json.RawMessage) string {
	var text string
	_ = json.Unmarshal(raw, &text) // else it is none
	return text
}

// code is the code that the body says, of those that gRPC defines and that are no
// success.
func (s *statusBody) code() (wire.Code, bool) {
	names := []string{s.Status, textOf(s.Code)}
	for code := wire.OK + 1; code < wire.NumCodes; code++ {
		for _, name := range names {
			if strings.EqualFold(name, code.String()) {
				return code, true
			}
		}
	}
	var number uint32
	if json.Unmarshal(s.Code, &number) != nil || number == 0 || number >= uint32(wire.NumCodes) {
		return 0, false
	}
	return wire.Code(number), true
}

// addDetails keeps the details of a status, and what Retry-After says.
func (o *Outbound) addDetails(st *wire.Status, details []json.RawMessage, response *http.Response) {
	full := &rpcstatus.Status{Code: int32(st.Code), Message: st.Message}
	retry := false
	for _, raw := range details {
		if d := o.detail(raw); d != nil {
			full.Details = append(full.Details, d)
			retry = retry || d.MessageIs((*errdetails.RetryInfo)(nil))
		}
	}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31); err == nil && !retry {
		delay := durationpb.New(time.Duration(seconds) * time.Second)
		if d, err := anypb.New(&errdetails.RetryInfo{RetryDelay: delay}); err == nil {
			full.Details = append(full.Details, d)
		}
	}
	if len(full.GetDetails()) > 0 {
		st.Details, _ = proto.Marshal(full) // what cannot be written is left out: the rest says the same
	}
}

// detail reads a google.protobuf.Any in JSON; nil when its type is not known and its
// value not in base64.
func (o *Outbound) detail(raw json.RawMessage) *anypb.Any {
	d := &anypb.Any{}
	if (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxOutboundDepth, Resolver: o.resolver()}).Unmarshal(raw, d) == nil {
		return d
	}
	var opaque struct {
		Type  string `json:"@type"`
		Value string `json:"value"`
	}
	if json.Unmarshal(raw, &opaque) != nil || opaque.Type == "" {
		return nil
	}
	value, err := base64.StdEncoding.DecodeString(opaque.Value)
	if err != nil {
		return nil
	}
	return &anypb.Any{TypeUrl: opaque.Type, Value: value}
}
