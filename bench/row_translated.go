package main

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	echov1 "sluice/bench/echo/v1"
)

// measureTranslated measures every binary of ours beside the row's translator, or
// beside its own native relay.
func (b *bench) measureTranslated(r row) error {
	with := slices.DeleteFunc(slices.Clone(b.translators), func(p proxy) bool { return p.name != r.translator })
	with = append(with, slices.DeleteFunc(slices.Clone(b.proxies), func(p proxy) bool { return !p.ours })...)
	var lanes []lane
	for _, p := range with {
		i := &instance{proxy: p, backends: &b.echoes, site: site{backends: b.echoes.addrs, schema: noteSchema()}}
		found, err := b.beginLanes(r, i)
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			b.leaveOut(p, fmt.Errorf("row %s: %w", r.name, err))
			continue
		}
		defer i.process.kill()
		lanes = append(lanes, found...)
	}
	return b.measureLoad(r, lanes)
}

// beginLanes starts a proxy for a row, and proves it in each way that it is asked.
func (b *bench) beginLanes(r row, i *instance) ([]lane, error) {
	lanes := []lane{{name: i.proxy.name, on: i, speech: r.speech}}
	if r.relayToo {
		of, to := relayNames(i.proxy)
		lanes[0].name = of
		lanes = append(lanes, lane{name: to, on: i, speech: speakNative})
	}
	return lanes, b.start(i, func(*instance) error {
		for k := range lanes {
			if err := lanes[k].prove(); err != nil {
				return fmt.Errorf("%s: %w", lanes[k].name, err)
			}
		}
		return nil
	})
}

// prove checks the replies of a lane, and takes their length from them.
func (l *lane) prove() (err error) {
	var spread balance
	if spread, l.body, err = probeSpeech(l.on.site.addr, l.speech); err != nil {
		return err
	}
	if !l.on.proxy.lone {
		if err := spread.check(true); err != nil {
			return err
		}
	}
	if !l.on.proxy.ours {
		return nil
	}
	return probeLate(l.on.site.addr, l.speech)
}

// relayNames is how a proxy of ours is called in the report where it translates, and
// where it relays the same RPC as it is.
func relayNames(p proxy) (of, to string) { return p.name, p.name + ", native gRPC" }

// noteSchema are the descriptors of the service, as a backend's owner would give
// them. What google.api.http is, the gateway knows.
func noteSchema() []byte {
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(echov1.File_echo_v1_echo_proto),
	}}
	raw, err := proto.Marshal(set)
	if err != nil {
		panic(fmt.Sprintf("marshal descriptors that are linked in: %v", err))
	}
	return raw
}
