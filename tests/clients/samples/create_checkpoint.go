package main

import (
	"fmt"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
    cbr "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/cbr/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/cbr/v1/model"
    region "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/cbr/v1/region"
)

func main() {
    // The AK and SK used for authentication are hard-coded or stored in plaintext, which has great security risks. It is recommended that the AK and SK be stored in ciphertext in configuration files or environment variables and decrypted during use to ensure security.
    // In this example, AK and SK are stored in environment variables for authentication. Before running this example, set environment variables CLOUD_SDK_AK and CLOUD_SDK_SK in the local environment
    ak := os.Getenv("CLOUD_SDK_AK")
    sk := os.Getenv("CLOUD_SDK_SK")

    auth := basic.NewCredentialsBuilder().
        WithAk(ak).
        WithSk(sk).
        Build()

    client := cbr.NewCbrClient(
        cbr.CbrClientBuilder().
            WithRegion(region.ValueOf("<YOUR REGION>")).
            WithCredential(auth).
            Build())

    request := &model.CreateCheckpointRequest{}
	var listResourcesParameters = []string{
        "94eba8b2-acc9-4d82-badc-127144cc5526",
    }
	autoTriggerParameters:= true
	descriptionParameters:= "backup_description"
	incrementalParameters:= true
	nameParameters:= "backup_name"
	parametersCheckpoint := &model.CheckpointParam{
		AutoTrigger: &autoTriggerParameters,
		Description: &descriptionParameters,
		Incremental: &incrementalParameters,
		Name: &nameParameters,
		Resources: &listResourcesParameters,
	}
	checkpointbody := &model.VaultBackup{
		Parameters: parametersCheckpoint,
		VaultId: "3b5816b5-f29c-4172-9d9a-76c719a659ce",
	}
	request.Body = &model.VaultBackupReq{
		Checkpoint: checkpointbody,
	}
	response, err := client.CreateCheckpoint(request)
	if err == nil {
        fmt.Printf("%+v\n", response)
    } else {
        fmt.Println(err)
    }
}
