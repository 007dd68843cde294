// Components no one here wrote the wire of: Dapr's components SDK for Go.
//
//	go-component    serves gomem.sock (state, pubsub, both bindings) and gosecrets.sock in
//	                DAPR_COMPONENT_SOCKETS_FOLDER until it is killed
//
// Whatever is asked before Init fails. The SDK has no secret stores, so those are Dapr's generated service.
package main

import (
	"fmt"
	"os"
	"sync"

	dapr "github.com/dapr-sandbox/components-go-sdk"
	"github.com/dapr-sandbox/components-go-sdk/bindings/v1"
	"github.com/dapr-sandbox/components-go-sdk/pubsub/v1"
	"github.com/dapr-sandbox/components-go-sdk/state/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func main() {
	dapr.Register("gomem",
		dapr.WithStateStore(func() state.Store { return newStore() }),
		dapr.WithPubSub(func() pubsub.PubSub { return newBroker() }),
		dapr.WithInputBinding(func() bindings.InputBinding { return &input{} }),
		dapr.WithOutputBinding(func() bindings.OutputBinding { return &output{} }))
	go serveSecrets(os.Getenv("DAPR_COMPONENT_SOCKETS_FOLDER") + "/gosecrets.sock")
	dapr.MustRun()
}

// life refuses what comes before Init.
type life struct {
	mu         sync.Mutex
	properties map[string]string
}

func (l *life) begin(properties map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if properties["refuse"] != "" {
		return status.Error(codes.InvalidArgument, "refused: "+properties["refuse"])
	}
	l.properties = properties
	if l.properties == nil {
		l.properties = map[string]string{}
	}
	return nil
}

func (l *life) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.properties == nil {
		return status.Error(codes.FailedPrecondition, "Init was not called")
	}
	return nil
}

// etagError is the status by which Dapr knows an etag's fault.
func etagError(code codes.Code, description string) error {
	violation := &errdetails.BadRequest_FieldViolation{Field: "etag", Description: description}
	detailed, err := status.New(code, "etag").WithDetails(
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{violation}})
	if err != nil {
		return fmt.Errorf("details: %w", err)
	}
	return detailed.Err()
}
