package gateway

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/gateway/h2"
	"sluice/gateway/wire"
)

// refusal is the status of an RPC that was not let in: its details say in words for
// programs who it was that had enough, and when another try may find room.
func (o outcome) refusal(after time.Duration) *wire.Status {
	st := o.status()
	st.Details = appendRefusal(nil, st, o.String(), after)
	return st
}

// The fields of google.rpc.Status, google.protobuf.Any, google.rpc.ErrorInfo,
// google.rpc.RetryInfo and google.protobuf.Duration that are written here.
const (
	statusCode, statusMessage, statusDetails = 1, 2, 3
	anyType, anyValue                        = 1, 2
	infoReason, infoDomain                   = 1, 2
	retryDelay                               = 1
	durationSeconds, durationNanos           = 1, 2
)

// errorDomain is whose the reasons of ErrorInfo are.
const errorDomain = "sluice.dev"

// appendRefusal writes a google.rpc.Status with an ErrorInfo and, if after is not zero, a
// RetryInfo.
func appendRefusal(b []byte, st *wire.Status, reason string, after time.Duration) []byte {
	b = protowire.AppendTag(b, statusCode, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(st.Code))
	b = appendText(b, statusMessage, st.Message)
	info := appendText(appendText(nil, infoReason, reason), infoDomain, errorDomain)
	b = appendDetail(b, "google.rpc.ErrorInfo", info)
	if after <= 0 {
		return b
	}
	var delay []byte
	delay = protowire.AppendTag(delay, durationSeconds, protowire.VarintType)
	delay = protowire.AppendVarint(delay, uint64(after/time.Second))
	delay = protowire.AppendTag(delay, durationNanos, protowire.VarintType)
	delay = protowire.AppendVarint(delay, uint64(after%time.Second))
	return appendDetail(b, "google.rpc.RetryInfo", appendText(nil, retryDelay, string(delay)))
}

func appendDetail(b []byte, name string, message []byte) []byte {
	detail := appendText(nil, anyType, "type.googleapis.com/"+name)
	detail = appendText(detail, anyValue, string(message))
	return appendText(b, statusDetails, string(detail))
}

// appendText appends a field of bytes, a string or a message.
func appendText(b []byte, field protowire.Number, text string) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, text)
}

// turnAway ends a call that was not let in, and that nobody has got.
func (c *call) turnAway(how outcome, after time.Duration) *wire.Status {
	c.refuse(how)
	return how.refusal(after)
}

// turnAway ends an RPC that was not let in. Nothing of it has been sent anywhere. The
// caller holds mu.
func (r *rpc) turnAway(how outcome, after time.Duration, b *h2.Batch) {
	st := how.refusal(after)
	fields := append(statusFields(false, st.Code, outcomes[how].message), h2.LiteralField("grpc-status-details-bin", encodeBin(st.Details)))
	switch {
	case r.web != nil:
		r.web.passing = false
	case !r.native:
		fields = []h2.Field{h2.IndexedField(":status", strconv.Itoa(st.HTTPStatus()))}
		if after > 0 {
			fields = append(fields, h2.IndexedField("retry-after", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10)))
		}
	}
	r.down.SendHeader(fields, true, b)
	r.finish(how, st.Code, b)
}
