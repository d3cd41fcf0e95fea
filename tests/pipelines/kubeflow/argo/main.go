// Reads what `deploy` sends from standard input, JSON objects one after the other, and writes the Argo Workflow that
// Kubeflow Pipelines' own compiler makes of each, or {"error": ...}. Built inside a checkout of kubeflow/pipelines,
// whose module cannot be imported from another one for its replace lines.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
	"github.com/kubeflow/pipelines/backend/src/v2/compiler/argocompiler"
	"google.golang.org/protobuf/encoding/protojson"
)

type sent struct {
	Job      json.RawMessage `json:"job"`
	Platform json.RawMessage `json:"platform"`
}

func compiled(one sent) (any, error) {
	job, platform := &pipelinespec.PipelineJob{}, &pipelinespec.SinglePlatformSpec{}
	if err := protojson.Unmarshal(one.Job, job); err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(one.Platform, platform); err != nil {
		return nil, err
	}
	return argocompiler.Compile(job, platform, &argocompiler.Options{})
}

func main() {
	proxy.InitializeConfigWithEmptyForTests()
	decoder, encoder := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var one sent
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		workflow, err := compiled(one)
		if err != nil {
			workflow = map[string]string{"error": err.Error()}
		}
		if err := encoder.Encode(workflow); err != nil {
			log.Fatal(err)
		}
	}
}
