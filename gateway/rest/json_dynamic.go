package rest

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// unmarshalDynamic is proto.Unmarshal for messages that may be dynamic. Of those, the
// library panics on an entry of a map whose key has another wire type than its field,
// which any peer can send; here that is an error.
func unmarshalDynamic(o proto.UnmarshalOptions, data []byte, m proto.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("malformed message: %v", v)
		}
	}()
	return o.Unmarshal(data, m)
}
